//! Smooth weighted round robin: each endpoint in turn, as often as its weight says, evenly spread.

use std::{cell::RefCell, cmp::Ordering, collections::BinaryHeap};

use super::subset::Subset;

/// Earliest deadline first: an endpoint of weight w is due every 1/w, and the one that has been due
/// longest is next. O(log n) a pick, where the textbook's smooth round robin is O(n). Envoy's and
/// gRPC's weighted round robin schedule in this way.
#[derive(Debug)]
pub(super) struct RoundRobin(RefCell<BinaryHeap<Turn>>);

/// When a member is due next, in units of 1/weight since the start.
#[derive(Clone, Copy, Debug)]
struct Turn {
    due: f64,
    at: usize,
}

impl RoundRobin {
    /// The first turns are spread at random, so that proxies started together, or a proxy whose
    /// snapshot changes often, do not all begin with the same endpoints.
    pub(super) fn new(subset: &Subset) -> Self {
        let turn = |at| Turn { due: fastrand::f64() / subset.weight(at) as f64, at };
        Self(RefCell::new((0..subset.members().len()).map(turn).collect()))
    }

    /// The next member that is not excluded; those skipped keep their turn.
    pub(super) fn pick(&self, subset: &Subset, excluded: &[usize]) -> Option<usize> {
        let mut turns = self.0.borrow_mut();
        let mut skipped = smallvec::SmallVec::<[Turn; 4]>::new();
        let picked = loop {
            match turns.pop() {
                Some(turn) if excluded.contains(&turn.at) => skipped.push(turn),
                other => break other,
            }
        };
        turns.extend(skipped);
        let turn = picked?;
        turns.push(Turn { due: turn.due + 1.0 / subset.weight(turn.at) as f64, at: turn.at });
        Some(turn.at)
    }
}

impl Ord for Turn {
    /// The greatest is the one due first: [`BinaryHeap`] pops the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.total_cmp(&self.due).then(other.at.cmp(&self.at))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}
