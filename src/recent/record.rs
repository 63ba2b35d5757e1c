//! The worker's side: which calls are put into words.

use std::{cell::Cell, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{
    Intake,
    entry::{Entry, is_slow, kind, waited},
};
use crate::call::{CallMeta, Outcome};

/// Calls of one kind that are recorded in a second, on one worker.
const MOST_A_SECOND: u32 = 10;
/// Kinds that are told apart. More share the budgets of others, which costs entries and no memory.
const BUDGETS: usize = 64;

/// Records the failed and slow calls of one worker.
#[derive(Debug)]
pub struct Recorder {
    intake: Intake,
    began: Instant,
    budgets: [Cell<Budget>; BUDGETS],
}

/// What may still be recorded of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    /// Since the start of the worker.
    second: u64,
    /// Recorded in that second.
    taken: u32,
    /// Not recorded since the last one that was.
    left_out: u64,
}

impl Recorder {
    /// Hands calls to `intake`.
    pub fn new(intake: Intake) -> Self {
        let budgets = std::array::from_fn(|_| Cell::default());
        Self { intake, began: Instant::now(), budgets }
    }

    /// Records a call that is over at `now`, if it failed or was slow. Any other costs a comparison.
    pub fn ended(&self, call: &CallMeta, outcome: Outcome, now: Instant) {
        if outcome.is_failure(call.kind) || is_slow(call, waited(call, now)) {
            self.record(call, outcome, now);
        }
    }

    fn record(&self, call: &CallMeta, outcome: Outcome, now: Instant) {
        let (status, error) = outcome.told(call.kind);
        let budget = &self.budgets[kind(call, &status, error) as usize % BUDGETS];
        let second = now.saturating_duration_since(self.began).as_secs();
        let (taken, before) = budget.get().take(second);
        // A full queue means that the control thread is busy: the words are lost, the call is not.
        let is_recorded = taken
            && self.intake.to.try_send(Entry::new(call, outcome, now, before.left_out)).is_ok();
        let left_out = if is_recorded { 0 } else { before.left_out + 1 };
        budget.set(Budget { left_out, ..before });
        if !is_recorded {
            self.intake.left_out.fetch_add(1, Relaxed);
        }
    }
}

impl Budget {
    /// Whether there is one more in this second, and the budget after it.
    const fn take(self, second: u64) -> (bool, Self) {
        let taken = if self.second == second { self.taken } else { 0 };
        let is_left = taken < MOST_A_SECOND;
        (is_left, Self { second, taken: taken + is_left as u32, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_recorded_in_a_second_and_as_many_in_the_next() {
        let mut budget = Budget::default();
        let mut taken = |second| {
            let (taken, after) = budget.take(second);
            budget = after;
            taken
        };
        assert_eq!((0..1000).filter(|_| taken(7)).count(), 10);
        assert_eq!((0..1000).filter(|_| taken(8)).count(), 10);
    }
}
