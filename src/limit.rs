//! How many calls are let through: the rules, and the counts that all workers share.
//!
//! [`crate::middleware`] asks a [`Gate`] for each call of a service that has limits; nobody waits here.
//! Counts are atomics that all workers add to, so a limit holds for the process exactly. That costs a
//! limited call one or two writes to a cache line that other workers write too; a call without limits
//! comes here not at all.

mod adaptive;
mod bucket;
mod counter;
mod gate;
mod gates;
mod gradient;

pub use counter::{Counter, Permit};
pub use gate::{Asked, Gate, Limit, Passed, Refusal, Waiting};
pub use gates::{Counted, Gates};
