//! The zone of this proxy first, as far as it reaches.

use std::collections::BTreeMap;

use super::{members::Members, play::Part, priority::OVERPROVISIONING};

/// What one level has in one zone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Zone {
    /// Endpoints, and how many of them are usable.
    pub(super) members: usize,
    pub(super) usable: usize,
    /// Its part of the level's usable weight, 0 to 1.
    pub(super) capacity: f64,
    /// Part of this proxy's calls to the level that it gets, 0 to 1.
    pub(super) load: f64,
}

/// The zones of one level by name; the empty name is that of endpoints that tell none.
pub(super) type Zones<'a> = BTreeMap<&'a str, Zone>;

/// Keeps the calls to the level of `priority` in zone `own` as far as it can carry them.
///
/// How many callers there are in each zone is not known, so they are taken to be spread evenly: each
/// of K zones has to carry 1/K of all calls. The own zone keeps all of this proxy's calls while its
/// capacity, with [`OVERPROVISIONING`], is at least that, else as much of them as it is of that. The
/// rest goes to the zones that have more than 1/K, by how much more it is.
pub(super) fn prefer<'a>(
    members: &'a Members,
    priority: u32,
    own: &str,
    parts: &mut [Part],
) -> Zones<'a> {
    let of_level = |at: &usize| members.priority(*at) == priority;
    let zone_of = |at: usize| &*members.endpoints()[at].record.zone;
    let mut zones = Zones::new();
    let mut total = 0.0;
    for at in (0..members.len()).filter(of_level) {
        let zone = zones.entry(zone_of(at)).or_default();
        zone.members += 1;
        if parts[at].usable {
            zone.usable += 1;
            zone.capacity += parts[at].size;
            total += parts[at].size;
        }
    }
    if total > 0.0 {
        zones.values_mut().for_each(|zone| zone.capacity /= total);
        share_out(&mut zones, own);
        for at in (0..members.len()).filter(of_level) {
            let zone = &zones[zone_of(at)];
            parts[at].size *= if zone.load > 0.0 { zone.load / zone.capacity } else { 0.0 };
        }
    }
    zones
}

fn share_out(zones: &mut Zones<'_>, own: &str) {
    let even = 1.0 / zones.len() as f64;
    let capacity = zones.get(own).map_or(0.0, |zone| zone.capacity);
    let kept = (OVERPROVISIONING * capacity / even).min(1.0);
    // Without an endpoint in the own zone there is nothing to prefer.
    let spare = |zone: &Zone| match zone.capacity - even {
        _ if capacity == 0.0 => zone.capacity,
        // Less than this is what is left of rounding.
        spare if spare > 1e-9 => spare,
        _ => 0.0,
    };
    let others = zones.iter().filter(|(name, _)| **name != own);
    let spares: f64 = others.map(|(_, zone)| spare(zone)).sum();
    for (name, zone) in zones.iter_mut() {
        zone.load = match *name == own {
            true => kept,
            false if kept < 1.0 => (1.0 - kept) * spare(zone) / spares,
            false => 0.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{Fixture, loads};

    /// The same in whole per cent.
    fn shares(usable: &[(&'static str, usize)]) -> Vec<f64> {
        loads_of(usable).into_iter().map(|load| (load * 100.0).round()).collect()
    }

    /// Part of the calls of a proxy in zone a that each zone gets, given its usable endpoints.
    fn loads_of(usable: &[(&'static str, usize)]) -> Vec<f64> {
        let zones: Vec<_> =
            usable.iter().flat_map(|(zone, count)| std::iter::repeat_n(*zone, *count)).collect();
        let members = Fixture::new(zones.len()).zone(|at| zones[at]).members();
        let mut parts = vec![Part { size: 1.0, usable: true }; zones.len()];
        let told = prefer(&members, 0, "a", &mut parts);
        let of_parts = loads(&parts, |at| zones[at].to_owned());
        for (name, zone) in &told {
            assert!((zone.load - of_parts[*name]).abs() < 1e-9, "{told:?}, {of_parts:?}");
        }
        usable.iter().map(|(name, _)| told[name].load).collect()
    }

    #[test]
    fn a_zone_that_can_carry_its_share_keeps_all_its_calls() {
        assert_eq!(shares(&[("a", 3), ("b", 3), ("c", 3)]), [100.0, 0.0, 0.0]);
        assert_eq!(shares(&[("a", 30), ("b", 3)]), [100.0, 0.0]);
        assert_eq!(shares(&[("a", 1)]), [100.0]);
        // An even share of three zones is a third; 24 % with a tolerance of 1.4 is enough.
        assert_eq!(shares(&[("a", 24), ("b", 38), ("c", 38)]), [100.0, 0.0, 0.0]);
    }

    #[test]
    fn a_smaller_zone_keeps_what_it_can_carry_and_the_rest_goes_where_there_is_room() {
        assert_eq!(shares(&[("a", 10), ("b", 45), ("c", 45)]), [42.0, 29.0, 29.0]);
        assert_eq!(shares(&[("a", 10), ("b", 30), ("c", 60)]), [42.0, 0.0, 58.0]);
        let told = loads_of(&[("a", 1), ("b", 3), ("c", 2)]);
        assert_eq!(told[2], 0.0, "not even what is left of rounding: {told:?}");
    }

    #[test]
    fn without_an_endpoint_in_the_own_zone_the_others_share_by_weight() {
        assert_eq!(shares(&[("b", 1), ("c", 3)]), [25.0, 75.0]);
    }
}
