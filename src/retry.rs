//! When a call is tried again that an endpoint may have worked on: the rules, without I/O.
//!
//! [`crate::middleware`] asks them for each attempt that has failed, of calls whose policy has
//! [`Retry`](crate::config::Retry) switched on. What is proven unprocessed is not asked for here.

mod budget;
mod previous;
mod pushback;

pub use budget::{call_began, is_spent, spend, take};
pub use previous::{PREVIOUS_ATTEMPTS, is_retry};
pub use pushback::{PUSHBACK, Pushback};
