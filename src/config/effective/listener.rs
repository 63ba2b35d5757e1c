//! Listeners, written back.

use crate::config::{
    Listener, ListenerLimits,
    raw::{RawListener, RawListenerLimits, RawListenerTls},
    table::Key,
    text::{Positive, Size},
    value::Count,
};

impl From<&Listener> for RawListener {
    fn from(listener: &Listener) -> Self {
        Self {
            address: listener.address.clone().into(),
            mode: listener.mode.into(),
            tls: listener
                .tls
                .as_ref()
                .map(RawListenerTls::from)
                .map_or_else(Key::default, Key::from),
            limits: RawListenerLimits::from(&*listener.limits).into(),
        }
    }
}

impl From<&ListenerLimits> for RawListenerLimits {
    fn from(limits: &ListenerLimits) -> Self {
        Self {
            max_connections: Count(limits.max_connections).into(),
            max_connections_per_peer: Count(limits.max_connections_per_peer).into(),
            max_streams: Count(limits.max_streams).into(),
            max_header_size: Size(limits.max_header_size.into()).into(),
            max_headers: Count(limits.max_headers).into(),
            header_timeout: Positive(limits.header_timeout).into(),
            idle_timeout: limits.idle_timeout.into(),
            max_age: limits.max_age.into(),
            stall_timeout: limits.stall_timeout.into(),
            max_buffered: Size(limits.max_buffered).into(),
            max_resets: Count(limits.max_resets).into(),
            max_odd_frames: Count(limits.max_odd_frames).into(),
        }
    }
}
