//! Where applications connect: sockets, HTTP/2 connections, calls.
//!
//! A connection lives on one worker from accept to close; so do its calls and their connections to
//! endpoints.

mod answer;
mod bind;
mod connection;
mod guard;
mod limits;
mod patience;
mod serve;
mod troubles;
mod wellformed;
mod why;

pub use bind::{Accepted, BindError, Bound, Incoming, bind};
pub use connection::{OfWorker, serve_connection};
pub use guard::Guards;
pub use limits::{Admitted, Breach, Breaches, Door, NewestLimits, Place};
pub use troubles::Troubles;
