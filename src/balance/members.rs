//! The endpoints that one selector leaves.

use std::sync::Arc;

use super::wheel::Excluded;
use crate::model::{Endpoint, Selector, Snapshot, State};

/// Metadata key of the priority: 0, which is also that of an endpoint without one, is used first. What
/// is too large or no number is used last: whoever wrote it did not mean the first.
const PRIORITY: &str = "priority";

/// Endpoints in the order of the address, as in the snapshot. A call's choice is among them.
#[derive(Debug)]
pub(super) struct Members {
    endpoints: Vec<Arc<Endpoint>>,
    /// Whether all of them have weight 0.
    drained: bool,
    /// One a member; empty where all are 0.
    priorities: Vec<u32>,
    /// Positions of those that are no longer registered, ascending.
    suspects: Vec<usize>,
}

impl Members {
    /// The endpoints of `snapshot` that match and may be picked. Drained ones (weight 0) are left
    /// out, unless there are no others.
    pub(super) fn new(snapshot: &Snapshot, selector: &Selector) -> Self {
        let allowed = |endpoint: &&Arc<Endpoint>| {
            endpoint.state() != State::Forbidden && selector.matches(endpoint)
        };
        let matching = || snapshot.endpoints.iter().filter(allowed);
        let weighted: Vec<_> =
            matching().filter(|endpoint| endpoint.record.weight > 0).cloned().collect();
        if weighted.is_empty() {
            Self::of(matching().cloned().collect())
        } else {
            Self::of(weighted)
        }
    }

    /// These endpoints, whatever their state.
    pub(super) fn of(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let drained = endpoints.iter().all(|endpoint| endpoint.record.weight == 0);
        let priority = |endpoint: &Arc<Endpoint>| {
            let text = endpoint.record.metadata.get(PRIORITY);
            text.map_or(0, |text| text.trim().parse().unwrap_or(u32::MAX))
        };
        let mut priorities = Vec::new();
        if endpoints.iter().any(|endpoint| priority(endpoint) > 0) {
            priorities.extend(endpoints.iter().map(priority));
        }
        let is_suspect = |at: &usize| endpoints[*at].load.is_suspect();
        let suspects = (0..endpoints.len()).filter(is_suspect).collect();
        Self { endpoints, drained, priorities, suspects }
    }

    /// The endpoints, in the order of the address.
    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Weight as registered; 1 where all are drained.
    pub(super) fn weight(&self, at: usize) -> u32 {
        if self.drained { 1 } else { self.endpoints[at].record.weight }
    }

    /// All weights, in order.
    pub(super) fn weights(&self) -> impl Iterator<Item = u32> + Clone {
        (0..self.len()).map(|at| self.weight(at))
    }

    /// Priority of a member: 0 is used first.
    pub(super) fn priority(&self, at: usize) -> u32 {
        self.priorities.get(at).copied().unwrap_or(0)
    }

    /// Whether all are of one priority, the first.
    pub(super) fn are_equal(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Positions of those that were ejected and that a call may try.
    pub(super) fn trials(&self) -> Vec<usize> {
        let has_trial = |at: &usize| self.endpoints[*at].load.has_trial();
        (0..self.len()).filter(has_trial).collect()
    }

    /// Excludes those that are no longer registered as well; none where there are none.
    pub(super) fn registered_only(&self, excluded: &Excluded) -> Option<Excluded> {
        let mut all: Excluded = excluded.iter().chain(&self.suspects).copied().collect();
        all.sort_unstable();
        all.dedup();
        (!self.suspects.is_empty()).then_some(all)
    }

    /// Positions of the tried endpoints that are members, ascending.
    pub(super) fn positions(&self, tried: &[Arc<Endpoint>]) -> Excluded {
        let mut found: Excluded =
            tried.iter().filter_map(|endpoint| self.position(endpoint)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn position(&self, endpoint: &Endpoint) -> Option<usize> {
        let address = endpoint.record.address.as_str();
        self.endpoints.binary_search_by(|member| member.record.address.as_str().cmp(address)).ok()
    }
}
