//! Priorities: who is a standby, and when it is needed.

use std::collections::BTreeMap;

use super::{members::Members, play::Part};

/// How much more than its own part of the calls an endpoint is taken to cope with: 1.4 as in Envoy,
/// so that a level carries all calls while 1/1.4, or 71 %, of its weight is usable.
pub(super) const OVERPROVISIONING: f64 = 1.4;

/// Endpoints of one priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Level {
    /// 0 is the first.
    pub(super) priority: u32,
    /// How many it has, and how many of them are usable.
    pub(super) members: usize,
    pub(super) usable: usize,
    /// Weight of these.
    weight: f64,
    usable_weight: f64,
    /// Its part of the calls, 0 to 1.
    pub(super) load: f64,
}

/// Gives each level as many of the calls as it can carry, the first level first: 1.4 times the part
/// of its weight that is usable, up to all. What is left goes to the next. Where all levels together
/// cannot carry everything, each takes more in the same measure.
pub(super) fn prioritise(members: &Members, parts: &mut [Part]) -> Vec<Level> {
    let mut levels = BTreeMap::<u32, Level>::new();
    for (at, part) in parts.iter().enumerate() {
        let level = levels.entry(members.priority(at)).or_default();
        level.members += 1;
        level.weight += part.size;
        if part.usable {
            level.usable += 1;
            level.usable_weight += part.size;
        }
    }
    let mut left = 1.0;
    for (priority, level) in &mut levels {
        level.priority = *priority;
        level.load = (OVERPROVISIONING * level.usable_weight / level.weight).min(left);
        left -= level.load;
    }
    for level in levels.values_mut().filter(|level| level.load > 0.0) {
        level.load /= 1.0 - left;
    }
    for (at, part) in parts.iter_mut().enumerate() {
        let level = &levels[&members.priority(at)];
        part.size =
            if level.load > 0.0 { part.size * level.load / level.usable_weight } else { 0.0 };
    }
    levels.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{Fixture, loads};

    /// Loads of two levels of ten endpoints, so many of which are usable.
    fn spill(usable: [usize; 2]) -> Vec<f64> {
        let members = Fixture::new(20).priority(|at| u32::from(at >= 10)).members();
        let parts = |at: usize| Part { size: 1.0, usable: at % 10 < usable[at / 10] };
        let mut parts: Vec<_> = (0..20).map(parts).collect();
        let levels = prioritise(&members, &mut parts);
        let of_parts = loads(&parts, |at| (at / 10).to_string());
        for (level, load) in levels.iter().zip(of_parts.values()) {
            assert!((level.load - load).abs() < 1e-9, "{levels:?}, {of_parts:?}");
        }
        levels.iter().map(|level| (level.load * 100.0).round()).collect()
    }

    #[test]
    fn a_standby_gets_what_the_level_before_it_cannot_carry() {
        assert_eq!(spill([10, 10]), [100.0, 0.0]);
        assert_eq!(spill([8, 10]), [100.0, 0.0]);
        assert_eq!(spill([7, 10]), [98.0, 2.0]);
        assert_eq!(spill([5, 10]), [70.0, 30.0]);
        assert_eq!(spill([1, 10]), [14.0, 86.0]);
        assert_eq!(spill([0, 10]), [0.0, 100.0]);
    }

    #[test]
    fn levels_that_cannot_carry_everything_take_more_in_the_same_measure() {
        assert_eq!(spill([3, 1]), [75.0, 25.0]);
        assert_eq!(spill([2, 0]), [100.0, 0.0]);
    }
}
