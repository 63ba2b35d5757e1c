//! Turns by weight: who is due next, and who after that.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::wheel::Wheel;

/// How many turns a member may fall behind while others are preferred to it; what it missed beyond
/// that, it does not make up for when it recovers.
const MOST_BEHIND: f64 = 2.0;

/// Earliest deadline first: a member of weight w is due every 1/w, and the one that has been due
/// longest is next. Smooth, and O(log n) a pick, where the textbook's smooth round robin is O(n).
/// Envoy's and gRPC's weighted round robin schedule in this way.
#[derive(Debug)]
pub(super) struct Turns(BinaryHeap<Turn>);

/// When a member is due next, in units of 1/weight since the start.
#[derive(Clone, Copy, Debug)]
struct Turn {
    due: f64,
    at: usize,
}

impl Turns {
    /// The first turns are spread at random, so that proxies started together, or a proxy whose
    /// snapshot changes often, do not all begin with the same endpoints.
    pub(super) fn new(wheel: &Wheel) -> Self {
        let members = (0..wheel.len()).filter(|&at| wheel.weight(at) > 0);
        Self(members.map(|at| Turn::spread(at, wheel)).collect())
    }

    /// Takes new weights. Who stays in keeps its place between two turns, who comes in gets one at
    /// random, as at the start.
    pub(super) fn reweigh(&mut self, old: &Wheel, new: &Wheel) {
        let now = self.0.peek().map_or(0.0, |turn| turn.due);
        let mut absent = vec![true; new.len()];
        let mut turns = std::mem::take(&mut self.0).into_vec();
        turns.retain_mut(|turn| {
            absent[turn.at] = false;
            turn.due = (turn.due - now) / every(turn.at, old) * every(turn.at, new);
            new.weight(turn.at) > 0
        });
        let coming = (0..new.len()).filter(|&at| absent[at] && new.weight(at) > 0);
        turns.extend(coming.map(|at| Turn::spread(at, new)));
        self.0 = turns.into();
    }

    /// Whose turn it is: smooth weighted round robin.
    pub(super) fn next(&mut self, wheel: &Wheel) -> Option<usize> {
        self.next_of_two(wheel, |_, _| false)
    }

    /// Whose turn it is, or who is next, where `prefers(second, first)` says so.
    ///
    /// Who is passed over stays first in line, so it gets the calls that it missed as soon as it is
    /// preferred again: shares follow the weights however many calls are in flight.
    pub(super) fn next_of_two(
        &mut self,
        wheel: &Wheel,
        prefers: impl FnOnce(usize, usize) -> bool,
    ) -> Option<usize> {
        let Self(turns) = self;
        let Turn { due, at } = match (turns.pop()?, turns.pop()) {
            (first, Some(second)) if prefers(second.at, first.at) => {
                let behind = second.due - MOST_BEHIND * every(first.at, wheel);
                turns.push(Turn { due: first.due.max(behind), ..first });
                second
            }
            (first, second) => {
                turns.extend(second);
                first
            }
        };
        turns.push(Turn { due: due + every(at, wheel), at });
        Some(at)
    }
}

/// Time between two turns of a member.
fn every(at: usize, wheel: &Wheel) -> f64 {
    1.0 / wheel.weight(at) as f64
}

impl Turn {
    fn spread(at: usize, wheel: &Wheel) -> Self {
        Self { due: fastrand::f64() * every(at, wheel), at }
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
