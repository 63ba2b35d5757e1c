//! Limits of a listener: what the file says, and the defaults where it says nothing.

use crate::config::{ListenerLimits, raw::RawListenerLimits};

pub(super) fn limits(raw: &RawListenerLimits) -> ListenerLimits {
    let default = ListenerLimits::default();
    ListenerLimits {
        max_connections: raw.max_connections.get().map_or(default.max_connections, |n| n.0),
        max_connections_per_peer: raw
            .max_connections_per_peer
            .get()
            .map_or(default.max_connections_per_peer, |n| n.0),
        max_streams: raw.max_streams.get().map_or(default.max_streams, |n| n.0),
        max_header_size: raw.max_header_size.get().map_or(default.max_header_size, |size| {
            // Its range fits.
            u32::try_from(size.0).unwrap_or(u32::MAX)
        }),
        max_headers: raw.max_headers.get().map_or(default.max_headers, |n| n.0),
        header_timeout: raw.header_timeout.get().map_or(default.header_timeout, |t| t.0),
        idle_timeout: raw.idle_timeout.get().copied().unwrap_or(default.idle_timeout),
        max_age: raw.max_age.get().copied().unwrap_or(default.max_age),
        stall_timeout: raw.stall_timeout.get().copied().unwrap_or(default.stall_timeout),
        max_buffered: raw.max_buffered.get().map_or(default.max_buffered, |size| size.0),
        max_resets: raw.max_resets.get().map_or(default.max_resets, |n| n.0),
        max_odd_frames: raw.max_odd_frames.get().map_or(default.max_odd_frames, |n| n.0),
    }
}
