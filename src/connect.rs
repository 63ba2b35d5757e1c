//! Connections to endpoints: one for each call, connected ahead, or shared.
//!
//! A worker owns one [`Connector`]; nothing here crosses threads. [`crate::middleware`] asks it for an
//! [`Upstream`] once per attempt. Nothing of a call is sent before the endpoint counts as connected,
//! so every [`DialError`] is proof that the endpoint did not work on the call.

mod dial;
mod gather;
mod names;
mod own;
mod peer;
mod pool;
mod probe;
mod stream;
mod upstream;
mod vigil;
mod warm;
mod wires;

pub use dial::DialError;
pub use probe::{answers, open};
pub use stream::{Awaited, Incoming, Outgoing, OwnStream, Sink, Source, StreamError};
pub use upstream::{Connector, Dialing, Upstream};
pub use wires::Wires;
