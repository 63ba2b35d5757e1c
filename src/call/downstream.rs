//! The connection of an application, as its calls see it; and how the calls of those with many take turns.
//!
//! A thousand calls that come, are answered or end at once are 20 ms of work for a worker, if each has a connection
//! to its endpoint, and 5 ms on shared ones. Those that come on other connections do not wait so long: once much has
//! been done for connections with many calls, their calls stand in line, those of one connection after those of the other, and
//! get on by short turns, between which the worker looks what has come. While the line is long such connections are
//! hardly read from; and while there is one, shared connections to endpoints that bring much are read one at a time.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::{
    task::{spawn_local, yield_now},
    time::Instant,
};

use crate::{
    clock,
    connect::Wires,
    panics::{Task, again},
};

/// How a call goes to its endpoint, of which the cost of a poll depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On a connection for itself, which it reads and writes: 10 to 30 us a poll.
    Own,
    /// On a shared one: 5 us a poll, and what many calls say goes out together, which turns make fewer of.
    Shared,
}

impl Way {
    /// No call is begun on in a turn after this.
    const fn turn(self) -> Duration {
        match self {
            Self::Own => Duration::from_micros(60),
            Self::Shared => Duration::from_micros(250),
        }
    }

    /// Calls that are woken together, so that what they say goes out together.
    const fn together(self) -> u32 {
        match self {
            Self::Own => 2,
            Self::Shared => 16,
        }
    }

    /// What a poll counts.
    const fn weight(self) -> u32 {
        match self {
            Self::Own => 4,
            Self::Shared => 1,
        }
    }
}

/// What may be done for connections with many calls before there are turns.
const AT_ONCE: u32 = 64;
/// More calls than this are many, if they have connections of their own; and than this, for a while after somebody who
/// has no more had an answer. Turns cost a busy worker up to a quarter, for less is read and written at a time, so
/// there are none where nobody is better off.
const MANY: u32 = 64;
const FEW: u32 = 8;
const WHILE: Duration = Duration::from_millis(200);
/// Whoever had more than few calls in this time has not few now: most likely some have ended at once.
const BEFORE: Duration = Duration::from_secs(2);
/// More calls than this are a long line; and turns for which it may keep a connection from being read, a tenth of a
/// second: calls that never stop working would keep their application from cancelling any.
const LONG: u32 = 64;
const PATIENCE: u32 = 1_024;

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

/// The turns of connections with many calls. A worker has one: however many such connections there are, the
/// others wait for no more than one turn.
#[derive(Debug, Default)]
pub struct Turns {
    /// When a call last ended on a connection that had few for a while.
    few: Cell<Option<Instant>>,
    /// What was done for connections with many calls since everybody else has had a turn.
    work: Cell<u32>,
    /// Connections with calls that wait.
    line: RefCell<VecDeque<Rc<Shared>>>,
    /// Connections that are not read from for the length of the line.
    held: RefCell<Vec<Waker>>,
    /// Which turn this is, and when it began.
    number: Cell<u32>,
    began: Cell<Option<Instant>>,
    /// Calls that were woken in it and have not been polled; and how many are woken at the next one's beginning.
    woken: Cell<u32>,
    together: Cell<u32>,
    /// Whether there is somebody who begins them.
    is_kept: Cell<bool>,
    /// How many calls wait, and what waits for them.
    wires: Rc<Wires>,
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

impl Turns {
    /// Shared connections to endpoints, of which those that bring much wait for the calls in line.
    pub fn wires(&self) -> Rc<Wires> {
        Rc::clone(&self.wires)
    }

    /// Whether a connection with few calls had an answer not long ago.
    fn somebody_has_few(&self) -> bool {
        self.few.get().is_some() && is_within(WHILE, &self.few, clock::now())
    }

    /// A call has been worked on.
    fn count(turns: &Rc<Self>, weight: u32) {
        turns.work.update(|work| work + weight);
        // Not for each: there may be no more for a while.
        if turns.work.get() >= AT_ONCE / 2 {
            Self::begin(turns);
        }
    }

    /// A call waits; of this connection, if no other of it does.
    fn line_up(turns: &Rc<Self>, connection: Option<&Rc<Shared>>) {
        turns.wires.call_waits();
        turns.line.borrow_mut().extend(connection.cloned());
        Self::begin(turns);
    }

    /// Sees to it that there will be another turn.
    fn begin(turns: &Rc<Self>) {
        if !turns.is_kept.replace(true) {
            let turns = Rc::clone(turns);
            spawn_local(again(Task::Worker, move || Rc::clone(&turns).keep()));
        }
    }

    /// Begins turns for as long as there is anybody in line.
    async fn keep(self: Rc<Self>) {
        while self.is_kept.get() {
            // Until the runtime has looked what has come for others.
            yield_now().await;
            self.work.set(0);
            self.number.update(|number| number.wrapping_add(1));
            self.began.set(Some(clock::now()));
            self.is_kept.set(self.wires.calls() > 0);
            self.next_connection();
            self.wake_some(self.together.get().max(1));
            if self.wires.calls() <= LONG / 2 || self.number.get().is_multiple_of(PATIENCE) {
                self.read_on();
            }
        }
    }

    /// A call has been polled in its turn: after the last that was woken come others, unless the turn is over.
    fn go_on(&self, way: Way) {
        self.together.set(way.together());
        self.woken.update(|woken| woken.saturating_sub(1));
        if self.woken.get() == 0 && is_within(way.turn(), &self.began, clock::now()) {
            self.wake_some(way.together());
        }
    }

    /// Wakes so many calls, if there are.
    fn wake_some(&self, most: u32) {
        let calls = most.min(self.wires.calls());
        self.woken.set(calls);
        (0..calls).for_each(|_| self.wake_next());
    }

    /// The connection that had the last turn is the last in line.
    fn next_connection(&self) {
        let mut line = self.line.borrow_mut();
        if !line.is_empty() {
            line.rotate_left(1);
        }
    }

    /// Wakes a call of the connection that is first in line, and stays so: what calls of one connection say goes out
    /// together.
    fn wake_next(&self) {
        let Some(first) = self.line.borrow().front().cloned() else { return };
        let call = first.waiting.borrow_mut().pop_front();
        first.woken.update(|woken| woken + 1);
        self.wires.call_goes_on();
        if first.waiting.borrow().is_empty() {
            self.line.borrow_mut().pop_front();
        }
        // Where it has gone meanwhile, others go on with the next turn.
        call.into_iter().for_each(Waker::wake);
    }

    /// Wakes the connections that were not read from.
    fn read_on(&self) {
        // Out of the cell first: who is woken may come back.
        let held = self.held.take();
        held.into_iter().for_each(Waker::wake);
    }
}

/// Whether it was no longer than this before `now`.
fn is_within(time: Duration, at: &Cell<Option<Instant>>, now: Instant) -> bool {
    at.get().is_some_and(|at| now < at + time)
}

#[cfg(test)]
mod tests;
