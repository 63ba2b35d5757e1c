//! A part of a large service for each proxy, so that not every proxy connects every endpoint.

use std::collections::BTreeMap;

use super::{
    hash::{hash_of, mix},
    members::Members,
    play::Part,
};

/// Leaves `size` members in play, and 0 as the part of all others.
///
/// Which ones is decided by rendezvous hashing: each proxy ranks the endpoints by a hash of its own
/// id and theirs, and takes the first. So it keeps those that it has while others come and go, and
/// over many proxies the endpoints are taken evenly. The members of one priority and zone (the own
/// one, the others) get as many of the places as they have of the calls, and keep that part of them,
/// if that is a place at all.
pub(super) fn narrow(
    members: &Members,
    size: usize,
    node: u64,
    own_zone: Option<&str>,
    parts: &mut [Part],
) {
    let mut groups = BTreeMap::<(u32, bool), Vec<(u64, usize)>>::new();
    for (at, part) in parts.iter_mut().enumerate() {
        if part.is_in_play() {
            let endpoint = &members.endpoints()[at];
            let elsewhere = own_zone.is_some_and(|own| endpoint.record.zone != own);
            let group = groups.entry((members.priority(at), elsewhere)).or_default();
            group.push((mix(node, hash_of(endpoint)), at));
        } else {
            part.size = 0.0;
        }
    }
    let sum = |group: &[(u64, usize)], parts: &[Part]| -> f64 {
        group.iter().map(|(_, at)| parts[*at].size).sum()
    };
    let total: f64 = parts.iter().map(|part| part.size).sum();
    let (mut carried, mut given) = (0.0, 0);
    for group in groups.values_mut() {
        let all = sum(group, parts);
        // Rounded as a running total, so that no more places are given than there are, and what one
        // group cannot fill the next one can.
        carried += all;
        let places = (size as f64 * carried / total).round() as usize - given;
        given += places.min(group.len());
        if places < group.len() {
            group.select_nth_unstable(places);
            let (kept, out) = group.split_at(places);
            let grow = all / sum(kept, parts);
            kept.iter().for_each(|(_, at)| parts[*at].size *= grow);
            out.iter().for_each(|(_, at)| parts[*at].size = 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::testing::{Fixture, fits},
        model::stable_hash,
    };

    /// Positions that the proxy with this id has of `size` endpoints.
    fn taken(members: &Members, size: usize, id: usize) -> Vec<usize> {
        let mut parts = vec![Part { size: 1.0, usable: true }; members.len()];
        narrow(members, size, stable_hash(format!("proxy-{id}").as_bytes()), None, &mut parts);
        (0..members.len()).filter(|&at| parts[at].size > 0.0).collect()
    }

    #[test]
    fn over_a_fleet_the_endpoints_are_taken_evenly() {
        let members = Fixture::new(500).members();
        let mut counts = vec![0_usize; 500];
        for id in 0..1_000 {
            let taken = taken(&members, 20, id);
            assert_eq!(taken.len(), 20);
            taken.into_iter().for_each(|at| counts[at] += 1);
        }
        // 40 proxies an endpoint on average: as even as a fair lottery, none forgotten.
        assert!(fits(&counts, &[1.0; 500]), "{counts:?}");
        assert!(counts.iter().all(|count| (15..=70).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_proxy_keeps_its_endpoints_while_others_come_and_go() {
        let (all, fewer) = (Fixture::new(500).members(), Fixture::new(499).members());
        let last = 499;
        for id in 0..200 {
            let (before, after) = (taken(&all, 20, id), taken(&fewer, 20, id));
            let lost = before.iter().filter(|at| !after.contains(at)).count();
            assert_eq!(lost, usize::from(before.contains(&last)), "only what left is replaced");
        }
    }

    #[test]
    fn a_larger_subset_holds_the_smaller_one() {
        let members = Fixture::new(100).members();
        let (small, large) = (taken(&members, 10, 1), taken(&members, 15, 1));
        assert!(small.iter().all(|at| large.contains(at)));
    }

    #[test]
    fn zones_share_the_places_as_they_share_the_calls() {
        let members = Fixture::new(40).zone(|at| ["a", "b"][at % 2]).members();
        let part = |at: usize| Part { size: [3.0, 1.0][at % 2], usable: true };
        let mut parts: Vec<_> = (0..40).map(part).collect();
        narrow(&members, 8, 7, Some("a"), &mut parts);
        let sizes = |zone: usize| parts.iter().skip(zone).step_by(2).map(|part| part.size);
        let places = |zone| sizes(zone).filter(|size| *size > 0.0).count();
        assert_eq!((places(0), places(1)), (6, 2));
        assert_eq!((sizes(0).sum::<f64>(), sizes(1).sum::<f64>()), (60.0, 20.0));
    }
}
