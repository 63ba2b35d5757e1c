//! What connections hold, so that the heaviest can be told.

use std::{
    cell::RefCell,
    cmp::Reverse,
    rc::{Rc, Weak},
    task::Context,
};

use super::{Breach, Guard};
use crate::config::ListenerLimits;

/// What a connection weighs, and an open call besides its head and what of its answer waits: its state, and
/// a connection to an endpoint.
const CONNECTION: u64 = 20 << 10;
const CALL: u64 = 48 << 10;
/// More bytes wait in h2 for a connection that takes nothing at all.
const UNWRITTEN: u64 = 64 << 10;
/// Part of `max_buffered` from which on answers wait with their endpoints: far more than whoever reads leaves lying,
/// and little where nobody does, for a thousand answers come on top of it with what is read of them at a time.
const PRESSES: u64 = 16;
/// Part of `max_buffered` that may wait where a connection to an endpoint is shared: nothing can be left with the
/// endpoint there, so more is on its way, and it waits in the buffers that it came in, a quarter larger than itself.
const SHARED: u64 = 2;
/// Connections that are ended at a time, by one worker.
const AT_ONCE: usize = 4;

/// What one call holds of its connection, until this is dropped.
#[derive(Debug)]
pub(in crate::listener) struct Burden {
    guard: Rc<Guard>,
    head: u64,
    waiting: u64,
    handed: u64,
}

impl Burden {
    /// A call whose head has this size.
    pub(in crate::listener) fn new(guard: &Rc<Guard>, head: usize) -> Self {
        let head = head as u64;
        guard.downstream.call_began();
        guard.hold(head, 0);
        Self { guard: Rc::clone(guard), head, waiting: 0, handed: 0 }
    }

    /// Whether this is too much for the connection: so much of the call's answer waits, which may come on a connection
    /// that others share.
    pub(in crate::listener) fn exceeds_with(&mut self, waiting: u64, is_shared: bool) -> bool {
        if waiting != self.waiting {
            let more = waiting > self.waiting;
            self.guard.hold(waiting, self.waiting);
            self.waiting = waiting;
            let most = self.guard.limits.max_buffered / if is_shared { SHARED } else { 1 };
            return more && self.guard.held.get() > most;
        }
        false
    }

    /// So many bytes of the answer have been handed over until now.
    pub(in crate::listener) fn has_handed_over(&mut self, bytes: u64) {
        if bytes != self.handed {
            self.guard.outbox.handed(bytes - self.handed);
            self.handed = bytes;
        }
    }

    /// Whether nothing more is to be handed over for now; the call is woken when it is.
    pub(in crate::listener) fn has_to_wait(&self, cx: &Context<'_>) -> bool {
        self.guard.outbox.is_full(cx)
    }

    /// The limits of the connection.
    pub(in crate::listener) fn limits(&self) -> &ListenerLimits {
        &self.guard.limits
    }

    /// The guard of the connection.
    pub(in crate::listener) const fn guard(&self) -> &Rc<Guard> {
        &self.guard
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.guard.downstream.call_ended();
        self.guard.hold(0, self.head + self.waiting);
    }
}

impl Guard {
    /// Holds so many bytes more, and so many less.
    fn hold(&self, more: u64, less: u64) {
        let held = self.held.get() + more - less;
        self.held.set(held);
        self.downstream.press(held > self.limits.max_buffered / PRESSES);
    }

    /// About as many bytes as its connection holds.
    fn weight(&self) -> u64 {
        let calls = u64::from(self.downstream.calls());
        let each = if self.blocked.get().is_some() { CALL + UNWRITTEN } else { CALL };
        self.held.get() + calls * each
    }

    /// Ends the connection for this.
    fn end(&self, breach: Breach) {
        self.breach.set(Some(breach));
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

/// The guards of all connections of a worker.
#[derive(Debug, Default)]
pub struct Guards {
    all: RefCell<Vec<Weak<Guard>>>,
}

impl Guards {
    /// Knows one more.
    pub(in crate::listener) fn add(&self, guard: &Rc<Guard>) {
        let mut all = self.all.borrow_mut();
        // Those of connections that have ended go when there would be no room.
        if all.len() == all.capacity() {
            all.retain(|guard| guard.strong_count() > 0);
            let room = all.len().max(16);
            all.reserve(room);
        }
        all.push(Rc::downgrade(guard));
    }

    /// About as many bytes as all of them hold.
    pub fn weight(&self) -> u64 {
        let guards = self.all.borrow();
        guards.iter().filter_map(Weak::upgrade).map(|guard| CONNECTION + guard.weight()).sum()
    }

    /// Ends the connections that hold most.
    pub fn end_heaviest(&self) {
        let mut guards: Vec<_> = self.all.borrow().iter().filter_map(Weak::upgrade).collect();
        guards.retain(|guard| guard.weight() > 0 && guard.breach().is_none());
        guards.sort_by_key(|guard| Reverse(guard.weight()));
        for guard in guards.iter().take(AT_ONCE) {
            guard.end(Breach::Memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(max_buffered: u64) -> Rc<Guard> {
        super::super::guard(ListenerLimits { max_buffered, ..Default::default() })
    }

    #[test]
    fn the_call_that_brings_more_than_may_wait_is_told_so() {
        let guard = guard(10_000);
        let (mut one, mut other) = (Burden::new(&guard, 100), Burden::new(&guard, 100));
        assert!(!one.exceeds_with(400, false) && !guard.downstream.is_under_pressure());
        assert!(
            !one.exceeds_with(500, false) && guard.downstream.is_under_pressure(),
            "a sixteenth"
        );
        assert!(!other.exceeds_with(4_300, true), "as much as may wait on shared connections");
        assert!(other.exceeds_with(4_301, true));
        assert!(!other.exceeds_with(9_300, false), "as much as may wait");
        assert!(other.exceeds_with(9_301, false));
        assert!(!one.exceeds_with(499, false), "who takes something is not to blame");
        drop((one, other));
        assert_eq!((guard.held.get(), guard.downstream.calls()), (0, 0));
        assert!(!guard.downstream.is_under_pressure());
    }

    #[test]
    fn the_heaviest_are_ended_and_those_without_calls_are_not() {
        let guards = Guards::default();
        let all: Vec<_> = (0..40).map(|_| guard(1000)).collect();
        all.iter().for_each(|guard| guards.add(guard));
        let burdens: Vec<_> = (0..10).map(|at| Burden::new(&all[at], at * 1000)).collect();
        guards.end_heaviest();
        let ended = || all.iter().filter(|guard| guard.breach().is_some()).count();
        assert_eq!(ended(), AT_ONCE);
        assert!(all[6..10].iter().all(|guard| guard.breach() == Some(Breach::Memory)));
        (0..9).for_each(|_| guards.end_heaviest());
        assert_eq!(ended(), 10);
        drop((burdens, all));
        (0..1000).for_each(|_| guards.add(&guard(1)));
        assert!(guards.all.borrow().capacity() < 200, "those that have ended are forgotten");
    }
}
