//! Endpoints that one rule of a selector leaves, ready to be drawn from by weight.

use std::sync::Arc;

use smallvec::SmallVec;

use super::draw::scale;
use crate::model::{Endpoint, Selector, Snapshot, State};

/// Positions to leave out of a draw, ascending. Calls try few endpoints, so it stays on the stack.
pub(super) type Excluded = SmallVec<[usize; 4]>;

/// Endpoints with weights. Drawing costs O(1) where all weights are equal, else O(log n).
#[derive(Debug)]
pub struct Subset {
    /// In the order of the address, as in the snapshot.
    members: Vec<Arc<Endpoint>>,
    /// Running total of weights, one a member; empty where all are equal.
    totals: Vec<u64>,
    /// Positions of members that are no longer registered.
    suspects: Vec<usize>,
}

/// An endpoint and the part of the traffic that falls to it by weight.
#[derive(Clone, Debug)]
pub struct Share {
    /// Which.
    pub endpoint: Arc<Endpoint>,
    /// 0 to 1.
    pub share: f64,
}

impl Subset {
    /// The endpoints of `snapshot` that match and may be picked. Drained ones (weight 0) are left
    /// out, unless there are no others, and so are suspects that may be dead.
    pub fn new(snapshot: &Snapshot, selector: &Selector) -> Self {
        let allowed = |endpoint: &&Arc<Endpoint>| {
            endpoint.state() != State::Forbidden && selector.matches(endpoint)
        };
        let matching: Vec<_> = snapshot.endpoints.iter().filter(allowed).cloned().collect();
        let or_all = |some: Vec<_>, all| if some.is_empty() { all } else { some };
        let sure = matching.iter().filter(|endpoint| !endpoint.load.is_doubtful()).cloned();
        let sure = or_all(sure.collect(), matching);
        let weighted = sure.iter().filter(|endpoint| endpoint.record.weight > 0).cloned();
        Self::of(or_all(weighted.collect(), sure))
    }

    /// These endpoints, whatever their state.
    pub(super) fn of(members: Vec<Arc<Endpoint>>) -> Self {
        let first = members.first().map_or(0, |endpoint| endpoint.record.weight);
        let totals = if members.iter().all(|endpoint| endpoint.record.weight == first) {
            Vec::new()
        } else {
            let sum = |total: &mut u64, endpoint: &Arc<Endpoint>| {
                *total += u64::from(endpoint.record.weight);
                Some(*total)
            };
            members.iter().scan(0, sum).collect()
        };
        let is_suspect = |at: &usize| members[*at].load.is_suspect();
        let suspects = (0..members.len()).filter(is_suspect).collect();
        Self { members, totals, suspects }
    }

    /// The endpoints, in the order of the address.
    pub fn members(&self) -> &[Arc<Endpoint>] {
        &self.members
    }

    /// Each endpoint with its part of the traffic by weight.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        let total = self.total() as f64;
        (0..self.members.len()).map(move |at| Share {
            endpoint: Arc::clone(&self.members[at]),
            share: self.weight(at) as f64 / total,
        })
    }

    /// Relative weight of a member: as registered, or 1 where all are equal.
    pub(super) fn weight(&self, at: usize) -> u64 {
        if self.totals.is_empty() { 1 } else { u64::from(self.members[at].record.weight) }
    }

    /// Positions of the tried endpoints that are members, ascending.
    pub(super) fn positions(&self, tried: &[Arc<Endpoint>]) -> Excluded {
        let mut found: Excluded =
            tried.iter().filter_map(|endpoint| self.position(endpoint)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Excludes the members that are no longer registered as well, unless no other would be left.
    pub(super) fn registered_only(&self, excluded: &Excluded) -> Option<Excluded> {
        let mut all: Excluded = excluded.iter().chain(&self.suspects).copied().collect();
        all.sort_unstable();
        all.dedup();
        (!self.suspects.is_empty() && all.len() < self.members.len()).then_some(all)
    }

    fn position(&self, endpoint: &Endpoint) -> Option<usize> {
        let address = endpoint.record.address.as_str();
        self.members.binary_search_by(|member| member.record.address.as_str().cmp(address)).ok()
    }

    /// Draws a member by weight among those not excluded. `number` is uniform in 0..2^64.
    pub(super) fn draw(&self, number: u64, excluded: &[usize]) -> Option<usize> {
        if excluded.len() >= self.members.len() {
            return None;
        }
        // Draw in what is left, then step over the excluded pieces that lie before the result.
        if self.totals.is_empty() {
            let left = (self.members.len() - excluded.len()) as u64;
            let mut at = scale(number, left) as usize;
            for &excluded in excluded {
                at += usize::from(at >= excluded);
            }
            return Some(at);
        }
        let taken: u64 = excluded.iter().map(|&at| self.weight(at)).sum();
        let mut point = scale(number, self.total() - taken);
        for &excluded in excluded {
            if point >= self.totals[excluded] - self.weight(excluded) {
                point += self.weight(excluded);
            }
        }
        Some(self.totals.partition_point(|&total| total <= point))
    }

    fn total(&self) -> u64 {
        self.totals.last().copied().unwrap_or(self.members.len() as u64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Record;

    pub(in crate::balance) fn snapshot(weights: &[u32]) -> Snapshot {
        let mut snapshot = Snapshot::empty("orders".parse().unwrap());
        for (at, weight) in weights.iter().enumerate() {
            let address = format!("10.0.{}.{}:80", at / 200, at % 200);
            let mut record = Record::new(address.parse().unwrap(), "test");
            record.weight = *weight;
            record.version = format!("v{}", at % 2 + 1);
            let (source, key) = ("main".into(), record.address.as_str().into());
            let endpoint = Endpoint { record: record.into(), source, key, load: Arc::default() };
            snapshot.endpoints.push(Arc::new(endpoint));
        }
        snapshot.endpoints.sort_by(|a, b| a.record.address.as_str().cmp(b.record.address.as_str()));
        snapshot
    }

    fn subset(weights: &[u32]) -> Subset {
        Subset::new(&snapshot(weights), &Selector::default())
    }

    #[test]
    fn drained_endpoints_are_drawn_only_where_all_are() {
        assert_eq!(subset(&[0, 5, 0]).members().len(), 1);
        let all_drained = subset(&[0, 0]);
        assert_eq!(all_drained.members().len(), 2);
        assert_eq!(all_drained.draw(0, &[]), Some(0));
        assert_eq!(all_drained.draw(u64::MAX, &[]), Some(1));
    }

    #[test]
    fn suspects_are_drawn_once_they_have_answered_or_where_nothing_else_is_left() {
        let snapshot = snapshot(&[1, 1, 1]);
        let drawn = || Subset::new(&snapshot, &Selector::default()).members().len();
        snapshot.endpoints[..2].iter().for_each(|endpoint| endpoint.load.suspect());
        assert_eq!(drawn(), 1);
        snapshot.endpoints[0].load.vouch();
        assert_eq!(drawn(), 2);
        snapshot.endpoints.iter().for_each(|endpoint| endpoint.load.suspect());
        assert_eq!(drawn(), 3);
        snapshot.endpoints[0].load.trust();
        assert_eq!(drawn(), 1);
    }

    proptest! {
        #[test]
        fn a_draw_never_returns_an_excluded_member_and_ends_when_none_is_left(
            weights in prop::collection::vec(1_u32..9, 1..30),
            excluded in prop::collection::btree_set(0_usize..30, 0..5),
            number: u64,
        ) {
            let subset = subset(&weights);
            let excluded: Vec<_> = excluded.into_iter().filter(|at| *at < weights.len()).collect();
            match subset.draw(number, &excluded) {
                Some(at) => prop_assert!(at < weights.len() && !excluded.contains(&at)),
                None => prop_assert_eq!(excluded.len(), weights.len()),
            }
        }

        #[test]
        fn what_is_left_keeps_its_relative_weights(
            weights in prop::collection::vec(1_u32..9, 3..10),
            out in 0_usize..3,
        ) {
            let subset = subset(&weights);
            let mut drawn = vec![0_u64; weights.len()];
            let left: u64 = subset.total() - subset.weight(out);
            // One number in the middle of each unit of weight hits each member `weight` times.
            for unit in 0..left {
                let number = ((u128::from(2 * unit + 1) << 64) / u128::from(2 * left)) as u64;
                drawn[subset.draw(number, &[out]).unwrap()] += 1;
            }
            for (at, drawn) in drawn.into_iter().enumerate() {
                prop_assert_eq!(drawn, if at == out { 0 } else { subset.weight(at) });
            }
        }
    }
}
