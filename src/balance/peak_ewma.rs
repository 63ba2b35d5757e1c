//! Two choices by latency and calls in flight, after Finagle's `PeakEwma`.

use std::time::{Duration, Instant};

use crate::clock;

use super::{members::Members, wheel::Wheel};

/// What an endpoint costs that has not answered yet and is being asked: more than any that has. So
/// each new endpoint gets a first call at once, and no further one before it has answered.
const UNKNOWN: f64 = 1e9;

/// Of two drawn by weight among those not excluded, the one that costs less.
pub(super) fn pick(
    members: &Members,
    wheel: &Wheel,
    decay: Duration,
    excluded: &[usize],
) -> Option<usize> {
    let numbers = (fastrand::u64(..), fastrand::u64(..));
    let (first, second) = wheel.pair(numbers, excluded)?;
    if first == second {
        return Some(first);
    }
    let now = clock::now().into_std();
    let cost = |at| cost(members, wheel, at, decay, now);
    Some(if cost(second) < cost(first) { second } else { first })
}

/// Latency times calls in flight, with this one added.
///
/// A weight is taken as so many places of mean weight, over which the calls in flight are spread, and
/// what counts is how many the place has that was drawn: whole calls, so what is over falls to some of
/// the places by chance. Were it counted in parts, a heavy endpoint with one call would lose to every
/// light one without, and get up to 40 % less than its weight while few calls are in flight. So shares
/// follow the weights within 15 % then, and exactly where they are equal.
fn cost(members: &Members, wheel: &Wheel, at: usize, decay: Duration, now: Instant) -> f64 {
    let load = &members.endpoints()[at].load;
    let in_flight = f64::from(load.in_flight()) * wheel.mean() / wheel.weight(at) as f64;
    let in_flight = in_flight.floor() + f64::from(fastrand::f64() < in_flight.fract());
    match load.latency().read(now, decay) {
        Some(latency) => latency * (in_flight + 1.0),
        None if in_flight == 0.0 => 0.0,
        None => UNKNOWN + in_flight,
    }
}
