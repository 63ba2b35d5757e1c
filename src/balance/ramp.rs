//! Slow start: an endpoint that is new gets its calls little by little.

use std::time::{Duration, Instant};

use super::members::Members;

/// Part of its weight with which an endpoint begins: enough to be seen to work.
const FLOOR: f64 = 0.1;
/// Steps in which it comes to its whole weight.
const STEPS: u32 = 50;
/// Shortest step. Each costs a look at every member.
const SHORTEST: Duration = Duration::from_millis(10);

/// A member that does not have its whole weight yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ramp {
    pub(super) at: usize,
    /// Part of its weight that it has, from [`FLOOR`] up to 1.
    pub(super) part: f64,
}

/// The members that joined less than `duration` before `now`.
pub(super) fn ramps(members: &Members, duration: Duration, now: Instant) -> Vec<Ramp> {
    let ramp = |at: usize| {
        let joined = members.endpoints()[at].load.joined()?;
        let age = now.saturating_duration_since(joined);
        let part = (age.as_secs_f64() / duration.as_secs_f64()).max(FLOOR);
        (age < duration).then_some(Ramp { at, part })
    };
    if duration.is_zero() { Vec::new() } else { (0..members.len()).filter_map(ramp).collect() }
}

/// Time after which ramps are to be looked at again.
pub(super) fn step(duration: Duration) -> Duration {
    (duration / STEPS).max(SHORTEST)
}
