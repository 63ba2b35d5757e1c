//! The turns of a worker: whose calls wait, and who gets on when.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::Waker,
    time::Duration,
};

use tokio::{
    task::{spawn_local, yield_now},
    time::Instant,
};

use super::{Shared, WHILE, is_within};
use crate::{
    clock,
    connect::Wires,
    panics::{Task, again},
};

/// What may be done for connections with many calls before there are turns.
pub(super) const AT_ONCE: u32 = 64;
/// More calls than this are a long line; and turns for which it may keep a connection from being read, a tenth of a
/// second: calls that never stop working would keep their application from cancelling any.
pub(super) const LONG: u32 = 64;
pub(super) const PATIENCE: u32 = 1_024;

/// How a call goes to its endpoint, of which the cost of a poll depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On a connection for itself, which it reads and writes: 10 to 30 us a poll.
    Own,
    /// On a shared one: 5 us a poll, and what many calls say goes out together, which turns make fewer of.
    Shared,
}

impl Way {
    /// No call is begun on in a turn after this.
    pub(super) const fn turn(self) -> Duration {
        match self {
            Self::Own => Duration::from_micros(60),
            Self::Shared => Duration::from_micros(250),
        }
    }

    /// Calls that are woken together, so that what they say goes out together.
    pub(super) const fn together(self) -> u32 {
        match self {
            Self::Own => 2,
            Self::Shared => 16,
        }
    }

    /// What a poll counts.
    pub(super) const fn weight(self) -> u32 {
        match self {
            Self::Own => 4,
            Self::Shared => 1,
        }
    }
}

/// The turns of connections with many calls. A worker has one: however many such connections there are, the
/// others wait for no more than one turn.
#[derive(Debug, Default)]
pub struct Turns {
    /// When a call last ended on a connection that had few for a while.
    pub(super) few: Cell<Option<Instant>>,
    /// What was done for connections with many calls since everybody else has had a turn.
    pub(super) work: Cell<u32>,
    /// Connections with calls that wait.
    line: RefCell<VecDeque<Rc<Shared>>>,
    /// Connections that are not read from for the length of the line.
    pub(super) held: RefCell<Vec<Waker>>,
    /// Which turn this is, and when it began.
    pub(super) number: Cell<u32>,
    began: Cell<Option<Instant>>,
    /// Calls that were woken in it and have not been polled; and how many are woken at the next one's beginning.
    woken: Cell<u32>,
    together: Cell<u32>,
    /// Whether the first in line has had its turn, or a part of it.
    has_begun: Cell<bool>,
    /// Whether there is somebody who begins them.
    is_kept: Cell<bool>,
    /// How many calls wait, and what waits for them.
    pub(super) wires: Rc<Wires>,
}

impl Turns {
    /// Shared connections to endpoints, of which those that bring much wait for the calls in line.
    pub fn wires(&self) -> Rc<Wires> {
        Rc::clone(&self.wires)
    }

    /// Whether a connection with few calls had an answer not long ago.
    pub(super) fn somebody_has_few(&self) -> bool {
        self.few.get().is_some() && is_within(WHILE, &self.few, clock::now())
    }

    /// A call has been worked on.
    pub(super) fn count(turns: &Rc<Self>, weight: u32) {
        turns.work.update(|work| work + weight);
        // Not for each: there may be no more for a while.
        if turns.work.get() >= AT_ONCE / 2 {
            Self::begin(turns);
        }
    }

    /// A call waits; of this connection, if no other of it does.
    pub(super) fn line_up(turns: &Rc<Self>, connection: Option<&Rc<Shared>>) {
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
    pub(super) fn go_on(&self, way: Way) {
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

    /// The connection that had the last turn, if it is still in line, is the last in it.
    fn next_connection(&self) {
        if self.has_begun.replace(false) {
            self.line.borrow_mut().rotate_left(1);
        }
    }

    /// Wakes a call of the connection that is first in line, and stays so: what calls of one connection say goes out
    /// together.
    fn wake_next(&self) {
        let Some(first) = self.line.borrow().front().cloned() else { return };
        let call = first.waiting.borrow_mut().pop_front();
        first.woken.update(|woken| woken + 1);
        self.wires.call_goes_on();
        let is_last = first.waiting.borrow().is_empty();
        self.has_begun.set(!is_last);
        if is_last {
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
