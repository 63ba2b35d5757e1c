//! Turns by weight: who is due next, and who after that.

use std::{cell::RefCell, cmp::Ordering, collections::BinaryHeap};

use super::subset::Subset;

/// How many turns a member may fall behind while others are preferred to it; what it missed beyond
/// that, it does not make up for when it recovers.
const MOST_BEHIND: f64 = 2.0;

/// Earliest deadline first: a member of weight w is due every 1/w, and the one that has been due
/// longest is next. Smooth, and O(log n) a pick, where the textbook's smooth round robin is O(n).
/// Envoy's and gRPC's weighted round robin schedule in this way.
#[derive(Debug)]
pub(super) struct Turns(RefCell<BinaryHeap<Turn>>);

/// When a member is due next, in units of 1/weight since the start.
#[derive(Clone, Copy, Debug)]
struct Turn {
    due: f64,
    at: usize,
}

impl Turns {
    /// The first turns are spread at random, so that proxies started together, or a proxy whose
    /// snapshot changes often, do not all begin with the same endpoints.
    pub(super) fn new(subset: &Subset) -> Self {
        let turn = |at| Turn { due: fastrand::f64() / subset.weight(at) as f64, at };
        Self(RefCell::new((0..subset.members().len()).map(turn).collect()))
    }

    /// Whose turn it is: smooth weighted round robin.
    pub(super) fn next(&self, subset: &Subset) -> Option<usize> {
        self.next_of_two(subset, |_, _| false)
    }

    /// Whose turn it is, or who is next, where `prefers(second, first)` says so.
    ///
    /// Who is passed over stays first in line, so it gets the calls that it missed as soon as it is
    /// preferred again: shares follow the weights however many calls are in flight.
    pub(super) fn next_of_two(
        &self,
        subset: &Subset,
        prefers: impl FnOnce(usize, usize) -> bool,
    ) -> Option<usize> {
        let mut turns = self.0.borrow_mut();
        let every = |at: usize| 1.0 / subset.weight(at) as f64;
        let Turn { due, at } = match (turns.pop()?, turns.pop()) {
            (first, Some(second)) if prefers(second.at, first.at) => {
                let behind = second.due - MOST_BEHIND * every(first.at);
                turns.push(Turn { due: first.due.max(behind), ..first });
                second
            }
            (first, second) => {
                turns.extend(second);
                first
            }
        };
        turns.push(Turn { due: due + every(at), at });
        Some(at)
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
