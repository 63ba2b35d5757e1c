//! Picks one endpoint of a service for one attempt.
//!
//! [`crate::middleware`] asks once per attempt. A [`Choice`] is prepared once for a snapshot and a
//! selector and lives on one worker, so a pick takes no lock, never waits and does no I/O: a service
//! with no usable endpoint is an error, not a queue. Endpoints that the call has tried are left out
//! by construction: the draw is made among the others, never repeated.

mod balancer;
mod by_key;
mod choice;
mod draw;
mod explain;
mod hash;
mod maglev;
mod members;
mod p2c;
mod peak_ewma;
mod pins;
mod plan;
mod play;
mod priority;
mod ramp;
mod ring;
mod stages;
mod standard;
mod subset;
mod tables;
#[cfg(test)]
mod testing;
mod turns;
mod wheel;
mod zone;

pub use choice::{Choice, PickError, Picked};
pub use explain::{Candidate, Explanation, Step, explain, explain_pin, explain_rule};
pub use pins::Pins;
pub use plan::Plan;
pub use stages::Stages;
pub use standard::Standard;
pub use tables::Tables;
