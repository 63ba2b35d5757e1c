//! HTTP/2 for one call: the client's side of a connection that has one stream, once (RFC 9113, RFC 7541).
//!
//! A general client keeps buffers, tables and locks for many streams, some 17 KiB for each connection; where the
//! connection ends with its call none of that is ever used. Here a call that waits holds what it has said and got,
//! and nothing else: bytes are read into a buffer that all connections of a thread share. `connect` has one for
//! each call that has a connection for itself. What an endpoint may not send ends the call with an [`Error`], with
//! the same bounds as on shared connections.

mod answer;
mod block;
mod connection;
mod error;
mod frame;
mod hpack;
mod input;
mod output;
mod request;
#[cfg(test)]
mod tests;
mod window;

pub use connection::Connection;
pub use error::Error;

/// Bytes that an endpoint may send before the application has taken any.
const STREAM_WINDOW: u32 = 256 << 10;
/// Largest payload of a frame, either way: what both sides may send unless told otherwise (RFC 9113 section 4.2).
const MAX_FRAME: usize = 16 << 10;
/// Largest head or trailers, after HPACK and as RFC 9113 section 6.5.2 counts them.
const MAX_HEADER_LIST: usize = 1 << 20;
/// Bytes of a call kept for an endpoint that does not read.
const SEND_BUFFER: usize = 256 << 10;
