//! The keys of [listener.limits].

use std::time::Duration;

use crate::config::{
    table::table,
    text::{Positive, Size},
    value::Count,
};

table! {
    /// What applications may do to this proxy, by mistake or not. A connection that goes beyond a limit
    /// is told so with GOAWAY ENHANCE_YOUR_CALM and ended, a call is refused by itself; each is counted
    /// in pillion_downstream_limited_total, and logged. See docs/security.md.
    struct RawListenerLimits {
        /// Connections of this listener; 0 for any number. More are closed at once. Each takes a file
        /// descriptor and some 20 KiB.
        max_connections: Count<0, 1_000_000>,
        /// Connections from one IP address; 0 for any number. No peer alone shuts out all others. On a
        /// Unix socket there are no addresses, and no such limit.
        max_connections_per_peer: Count<0, 1_000_000>,
        /// Calls that one connection may have open: what SETTINGS tells the application.
        max_streams: Count<1, 1_000_000>,
        /// Largest head of a call: names and values after HPACK, and 32 bytes for each. A call with more
        /// is refused.
        max_header_size: Size<1024, 262_144>,
        /// Most headers of a call. A call with more is refused.
        max_headers: Count<16, 10_000>,
        /// Longest time from accept to the first frame behind the client's preface, and from the first
        /// byte of a call's head to its last: whoever has begun to speak has to come to an end.
        header_timeout: Positive,
        /// Longest time that a connection may be without a call; "0s" for ever. PINGs do not count.
        idle_timeout: Duration,
        /// Age at which a connection is told to go away, so that its application connects anew; 10 % more
        /// or less, so that those that came together do not go together. Calls on it end in their own
        /// time. "0s" for never.
        max_age: Duration,
        /// Longest time that an application may leave what waits for it untouched: an answer that its
        /// flow-control window keeps back is ended then, to within 16 KiB, and a connection that takes no byte. "0s" for
        /// ever.
        stall_timeout: Duration,
        /// Bytes of answers that may wait for the application on one connection, beyond what its windows
        /// and the system hold. From a sixteenth of it on an answer waits with its endpoint instead, but for some
        /// 16 KiB. The call that brings more is ended; on a shared connection to its endpoint, where an answer cannot be left
        /// unread but for what is beyond 128 KiB, the call that brings more than half.
        max_buffered: Size<65_536, 17_179_869_184>,
        /// Calls of one connection that may end within a second of their beginning without an answer,
        /// because the application reset them, or because they were malformed or beyond `max_streams`, in
        /// ten seconds and beyond one for each call that was answered; 0 for any number. Calls whose
        /// grpc-timeout had passed do not count. Each may cost a connection to an endpoint, and none has
        /// a place in `max_streams` for long.
        max_resets: Count<0, 1_000_000>,
        /// Frames of one connection that carry nothing, in ten seconds and beyond one for each that does,
        /// in either direction; 0 for any number: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM,
        /// CONTINUATION, empty DATA, unknown ones. They cost time only.
        max_odd_frames: Count<0, 10_000_000>,
    }
}
