//! The power of two choices (Mitzenmacher, 2001), weighted.

use super::{
    members::Members,
    turns::Turns,
    wheel::{Excluded, Wheel},
};

/// Of the two whose turn it is by weight, the one with more room.
///
/// The two are not drawn at random. Drawn at random, shares stray from the weights by up to 15 % when
/// few calls are in flight, because whoever is passed over has lost that turn for good; so they stay
/// within 3 %, and a slow endpoint is avoided as well.
pub(super) fn next(members: &Members, wheel: &Wheel, turns: &mut Turns) -> Option<usize> {
    turns.next_of_two(wheel, |second, first| is_freer(members, wheel, second, first))
}

/// Of two drawn among those not excluded, the one with more room.
pub(super) fn draw(members: &Members, wheel: &Wheel, excluded: &Excluded) -> Option<usize> {
    let first = wheel.draw(fastrand::u64(..), excluded)?;
    let mut excluded = excluded.clone();
    let place = excluded.partition_point(|&at| at < first);
    excluded.insert(place, first);
    match wheel.draw(fastrand::u64(..), &excluded) {
        Some(second) if is_freer(members, wheel, second, first) => Some(second),
        _ => Some(first),
    }
}

/// The second wins where, with this call added, it would hold no more calls for its weight than the
/// first holds already. For equal weights: where it holds fewer.
fn is_freer(members: &Members, wheel: &Wheel, second: usize, first: usize) -> bool {
    let in_flight = |at: usize| u64::from(members.endpoints()[at].load.in_flight());
    (in_flight(second) + 1) * wheel.weight(first) <= in_flight(first) * wheel.weight(second)
}
