//! What one listener lets applications do to this proxy.

use std::time::Duration;

/// Limits of a listener and of each of its connections. Where a number may be 0 it means that there is
/// no such limit; the same goes for a time that may be zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections of the listener; 0 for any number. Default 10 000.
    pub max_connections: u32,
    /// Connections from one address; 0 for any number. Default 5000.
    pub max_connections_per_peer: u32,
    /// Calls that one connection may have open, at least 1. Default 1000.
    pub max_streams: u32,
    /// Bytes of a call's head after HPACK: names, values and 32 bytes each (RFC 9113 section 6.5.2).
    /// Default 64 KiB.
    pub max_header_size: u32,
    /// Headers of a call. Default 256.
    pub max_headers: u32,
    /// From accept to the first frame behind the preface, and from the first byte of a head to its
    /// last. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be without calls; zero for ever. Default 1 h.
    pub idle_timeout: Duration,
    /// After which a connection is told to go away, 10 % more or less; zero for never, the default.
    pub max_age: Duration,
    /// How long an application may leave what waits for it untouched; zero for ever. Default 5 min.
    pub stall_timeout: Duration,
    /// Bytes that may wait for the application on one connection. Default 8 MiB.
    pub max_buffered: u64,
    /// Calls of a connection that may be broken off within a second in some ten seconds, beyond one for
    /// each that was answered; 0 for any number. Default 200.
    pub max_resets: u32,
    /// Frames of a connection that carry nothing in some ten seconds, beyond one for each that does; 0
    /// for any number. Default 10 000.
    pub max_odd_frames: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_peer: 5000,
            max_streams: 1000,
            max_header_size: 64 << 10,
            max_headers: 256,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            max_age: Duration::ZERO,
            stall_timeout: Duration::from_secs(300),
            max_buffered: 8 << 20,
            max_resets: 200,
            max_odd_frames: 10_000,
        }
    }
}
