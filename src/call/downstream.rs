//! The connection of an application, as its calls see it; and how the calls of those with many take turns.
//!
//! A thousand calls that come, are answered or end at once are 20 ms of work for a worker, if each has a connection
//! to its endpoint, and 5 ms on shared ones. Those that come on other connections do not wait so long: once much has
//! been done for connections with many calls, their calls stand in line, those of one connection after those of the
//! other, and get on by short turns, between which the worker looks what has come. While the line is long such
//! connections are hardly read from; and while there is one, shared connections to endpoints that bring much wait for
//! the calls in it.

mod turns;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

pub use turns::Turns;

use crate::clock;
use turns::{AT_ONCE, LONG, PATIENCE, Way};

/// More calls than this are many, if they have connections of their own; and than this, for a while after somebody who
/// has no more had an answer. Turns cost a busy worker up to a fifth, for less is read and written at a time, so
/// there are none where nobody is better off.
const MANY: u32 = 64;
const FEW: u32 = 8;
const WHILE: Duration = Duration::from_millis(200);
/// Whoever had more than few calls in this time has not few now: most likely some have ended at once.
const BEFORE: Duration = Duration::from_secs(2);

/// What the calls of one connection have in common. The listener has one for each; cloning it gives another hold
/// on the same.
#[derive(Clone, Debug, Default)]
pub struct Downstream(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls that have not ended.
    calls: Cell<u32>,
    /// When they last were more than few.
    more_than_few: Cell<Option<Instant>>,
    pressed: Cell<bool>,
    /// Whether the call that begins, or is polled, has got a connection for itself.
    dials: Cell<bool>,
    /// Calls that wait for a turn, and how many have been woken for theirs.
    waiting: RefCell<VecDeque<Waker>>,
    woken: Cell<u64>,
    /// The turn in which it was read last while the line was long.
    read: Cell<u32>,
    turns: Rc<Turns>,
}

/// The part of one call in the turns of its connection.
#[derive(Debug)]
pub struct Turn {
    way: Way,
    /// How many will have been woken when it is; none while it does not wait.
    place: Option<u64>,
}

impl Downstream {
    /// For a connection that has just come to the worker with these turns.
    pub fn new(turns: &Rc<Turns>) -> Self {
        let read = turns.number.clone();
        Self(Rc::new(Shared { read, turns: Rc::clone(turns), ..Shared::default() }))
    }

    /// Calls of it that have not ended.
    pub fn calls(&self) -> u32 {
        self.0.calls.get()
    }

    /// One more has begun.
    pub fn call_began(&self) {
        let Shared { calls, more_than_few, .. } = &*self.0;
        calls.update(|calls| calls + 1);
        if calls.get() > FEW {
            more_than_few.set(Some(clock::now()));
        }
    }

    /// One of them has ended.
    pub fn call_ended(&self) {
        let Shared { calls, more_than_few, turns, .. } = &*self.0;
        calls.update(|calls| calls - 1);
        // Not where one begins: many that come at once are few at first.
        if calls.get() < FEW {
            let now = clock::now();
            if !is_within(BEFORE, more_than_few, now) {
                turns.few.set(Some(now));
            }
        }
    }

    /// Whether so much waits for the application that further answers are to wait with their endpoints.
    pub fn is_under_pressure(&self) -> bool {
        self.0.pressed.get()
    }

    /// Says so, or that it does not.
    pub fn press(&self, on: bool) {
        self.0.pressed.set(on);
    }

    /// The call that begins, or is polled, gets a connection to an endpoint for itself.
    pub fn dials(&self) {
        self.0.dials.set(true);
    }

    /// Whether others are to have a turn before more of its calls get on.
    pub fn has_had_its_turn(&self) -> bool {
        self.0.has_had_its_turn(Way::Own)
    }

    /// Whether no more of it is to be read, for the line is long. It is woken when that is over.
    pub fn has_to_wait(&self, cx: &Context<'_>) -> bool {
        self.0.turns.wires.calls() > LONG && self.0.has_many(Way::Own) && self.0.has_been_read(cx)
    }
}

impl Turn {
    /// For a call of `downstream` that has just been put on the chain.
    pub fn new(downstream: &Downstream) -> Self {
        let mut turn = Self { way: Way::Shared, place: None };
        turn.count(&downstream.0);
        turn
    }

    /// Polls a call of `downstream`, unless its connection has had its turn: then the call is woken when the
    /// runtime has looked what has come for others.
    #[inline]
    pub fn take<T>(
        &mut self,
        downstream: &Downstream,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> Option<T> {
        let shared = &downstream.0;
        let waits = self.place.is_some() || shared.has_had_its_turn(self.way);
        if waits && !self.has_come(shared, cx) {
            return None;
        }
        let polled = poll(cx);
        self.count(shared);
        if waits {
            shared.turns.go_on(self.way);
        }
        Some(polled)
    }

    /// Counts what has just been done.
    #[inline]
    fn count(&mut self, shared: &Shared) {
        if shared.dials.get() {
            shared.dials.set(false);
            self.way = Way::Own;
        }
        if shared.has_many(self.way) {
            Turns::count(&shared.turns, self.way.weight());
        }
    }

    /// Whether it is the call's turn; if not, it waits for it, behind those that wait already.
    #[cold]
    fn has_come(&mut self, shared: &Rc<Shared>, cx: &Context<'_>) -> bool {
        match self.place {
            Some(place) if place <= shared.woken.get() => {
                self.place = None;
                return true;
            }
            // Something else has woken it.
            Some(_) => return false,
            None => {}
        }
        let mut waiting = shared.waiting.borrow_mut();
        waiting.push_back(cx.waker().clone());
        self.place = Some(shared.woken.get() + waiting.len() as u64);
        Turns::line_up(&shared.turns, (waiting.len() == 1).then_some(shared));
        false
    }
}

impl Shared {
    /// Whether its calls are too many to be worked on at once.
    #[inline]
    fn has_many(&self, way: Way) -> bool {
        let calls = self.calls.get();
        calls > FEW && ((calls > MANY && way == Way::Own) || self.turns.somebody_has_few())
    }

    /// Whether it was read not long ago; if so, `cx` is woken later.
    #[cold]
    fn has_been_read(&self, cx: &Context<'_>) -> bool {
        let now = self.turns.number.get();
        if now.wrapping_sub(self.read.get()) >= PATIENCE {
            self.read.set(now);
            return false;
        }
        let mut held = self.turns.held.borrow_mut();
        if !held.iter().any(|other| other.will_wake(cx.waker())) {
            held.push(cx.waker().clone());
        }
        true
    }

    fn has_had_its_turn(&self, way: Way) -> bool {
        (self.turns.work.get() >= AT_ONCE || self.turns.wires.calls() > 0) && self.has_many(way)
    }
}

/// Whether it was no longer than this before `now`.
fn is_within(time: Duration, at: &Cell<Option<Instant>>, now: Instant) -> bool {
    at.get().is_some_and(|at| now < at + time)
}

#[cfg(test)]
mod tests;
