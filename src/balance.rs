//! Picks one endpoint of a service for one attempt.
//!
//! [`crate::middleware`] asks once per attempt. A [`Choice`] is prepared once for a snapshot and a
//! selector and lives on one worker, so a pick takes no lock, never waits and does no I/O: a service
//! with no usable endpoint is an error, not a queue. Endpoints that the call has tried are left out
//! by construction: the draw is made among the others, never repeated.

mod choice;
mod draw;
mod explain;
mod pins;
mod subset;
mod turns;

pub use choice::{Choice, PickError};
pub use explain::{Explanation, Step, explain, explain_pin};
pub use pins::Pins;
pub use subset::{Share, Subset};
