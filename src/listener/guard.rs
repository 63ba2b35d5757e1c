//! What one connection of an application may do: it keeps count, and says when it is too much.
//!
//! [`Guarded`] and the calls of the connection tell a [`Guard`] what happens; `connection` asks it
//! whether to go on. What a well-behaved application does costs additions: the clock is only looked at
//! when something is held up or a count is full.

mod bucket;
mod burden;
mod frames;
mod io;
mod outbox;
mod watch;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

pub(super) use burden::Burden;
pub use burden::Guards;
pub(super) use io::Guarded;
pub(super) use watch::{Look, Watch};

use super::limits::{Breach, Breaches};
use crate::{
    call::{CallMeta, Downstream},
    clock,
    config::ListenerLimits,
};
use bucket::Bucket;
use frames::Tally;
use outbox::Outbox;

/// A call that was broken off later than this has taken a place in `max_streams` for long enough.
const EARLY: Duration = Duration::from_secs(1);
/// Work that is read in one turn, an odd frame each; and how much more of it a head is.
const WORK: u32 = 256;
const HEAD: u32 = 4;
/// Odd frames, twice, that have not been made up for; and bytes that are read at a time from then on: 40 frames.
const ODD: u32 = 512;
const PIECE: usize = 512;
/// An application's clock may ring so much before ours.
const CLOCKS_DIFFER: Duration = Duration::from_millis(50);

/// What of that which has come may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Portion {
    All,
    /// As many bytes as `PIECE`.
    Piece,
    Nothing,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Guard {
    /// The limits of its listener.
    pub(super) limits: Arc<ListenerLimits>,
    /// Address of the application; none on a Unix socket.
    pub(super) source: Option<IpAddr>,
    /// Names in its certificate, where it was asked for one.
    pub(super) identity: OnceCell<Rc<str>>,
    /// Where is noted what it does that it may not.
    pub(super) breaches: Rc<Breaches>,
    accepted: Instant,
    breach: Cell<Option<Breach>>,
    /// Whether a frame has come.
    heard: Cell<bool>,
    /// Since when a head has been coming.
    within_head: Cell<Option<Instant>>,
    /// Since when nothing could be written.
    blocked: Cell<Option<Instant>>,
    /// Frames that carry nothing; one counts two, so that a write can make up for half of one.
    odd: RefCell<Bucket>,
    resets: RefCell<Bucket>,
    /// What was read in this turn, by the work that it makes; and whether no more was for that.
    work: Cell<u32>,
    was_held_back: Cell<bool>,
    /// Streams that were opened, less the calls that came of them.
    lost: Cell<i32>,
    /// Of `lost`, those that have been counted.
    counted: Cell<i32>,
    /// Bytes that calls which have not ended hold: their heads, and answers that wait for room.
    held: Cell<u64>,
    /// What its calls know of it; under pressure while it holds much of what it may.
    pub(super) downstream: Downstream,
    /// What waits for the system.
    outbox: Outbox,
    /// Times that something was written.
    writes: Cell<u32>,
    /// Wakes the connection.
    task: OnceCell<Waker>,
}

impl Guard {
    /// The guard of a connection that has just been accepted.
    pub(super) fn new(
        limits: Arc<ListenerLimits>,
        source: Option<IpAddr>,
        breaches: Rc<Breaches>,
        downstream: Downstream,
    ) -> Self {
        let now = Instant::now();
        Self {
            odd: RefCell::new(Bucket::new(limits.max_odd_frames.saturating_mul(2), now)),
            resets: RefCell::new(Bucket::new(limits.max_resets, now)),
            limits,
            source,
            identity: OnceCell::new(),
            breaches,
            accepted: now,
            breach: Cell::default(),
            heard: Cell::default(),
            within_head: Cell::default(),
            blocked: Cell::default(),
            work: Cell::default(),
            was_held_back: Cell::default(),
            lost: Cell::default(),
            counted: Cell::default(),
            held: Cell::default(),
            downstream,
            outbox: Outbox::default(),
            writes: Cell::default(),
            task: OnceCell::new(),
        }
    }

    /// Why the connection has to end, if it has.
    pub(super) const fn breach(&self) -> Option<Breach> {
        self.breach.get()
    }

    /// Notes a breach that does not end the connection.
    pub(super) fn note(&self, breach: Breach) {
        self.breaches.note(breach, self.source);
    }

    /// The task of the connection is `task`, and stays so.
    pub(super) fn polled_by(&self, task: &Waker) {
        if self.task.get().is_none() {
            let _ = self.task.set(task.clone());
        }
    }

    /// A call has been taken off the connection.
    pub(super) fn call_came(&self) {
        self.lost.update(|lost| lost.wrapping_sub(1));
    }

    /// All calls that came have been taken off. Streams of which none came were malformed, or too
    /// many: h2 has reset them. Tells how many there were since last time.
    pub(super) fn no_more_calls(&self) -> u32 {
        let (lost, counted) = (self.lost.get(), self.counted.get());
        // While it cannot write, h2 keeps streams that it has read.
        if lost != counted && self.blocked.get().is_none() {
            self.counted.set(lost);
            let resets = lost.saturating_sub(counted).max(0).unsigned_abs();
            self.count_resets(resets);
            return resets;
        }
        0
    }

    /// A call was answered, whatever the answer.
    pub(super) fn answered(&self) {
        self.resets.borrow_mut().forgive(1);
    }

    /// A call ended without an answer: the application reset it, or did what made h2 reset it.
    pub(super) fn broke_off(&self, call: &CallMeta) {
        let now = clock::now();
        let late = call.deadline.get().is_some_and(|deadline| deadline <= now + CLOCKS_DIFFER);
        if !late && now.saturating_duration_since(call.arrived) < EARLY {
            self.count_resets(1);
        }
    }

    fn count_resets(&self, resets: u32) {
        if self.resets.borrow_mut().overflows(resets, Instant::now) {
            self.breach.set(Some(Breach::Resets));
        }
    }

    fn read(&self, tally: Tally, is_within_head: bool) {
        self.work.update(|work| work.saturating_add(tally.opened * HEAD + tally.odd));
        if tally.carrying + tally.odd > 0 {
            self.heard.set(true);
        }
        if tally.opened > 0 {
            self.lost.update(|lost| lost.wrapping_add_unsigned(tally.opened));
        }
        let mut odd = self.odd.borrow_mut();
        odd.forgive(tally.carrying * 2);
        if tally.odd > 0 && odd.overflows(tally.odd * 2, Instant::now) {
            self.breach.set(Some(Breach::OddFrames));
        }
        if is_within_head != self.within_head.get().is_some() {
            self.within_head.set(is_within_head.then(Instant::now));
        }
    }

    /// How much may be read now. Each odd frame can be work for a call, and each head is: others get their turn
    /// between so many and the next.
    fn may_read(&self, cx: &Context<'_>) -> Portion {
        if self.downstream.has_to_wait(cx) {
            return Portion::Nothing;
        }
        if self.work.get() >= WORK {
            self.was_held_back.set(true);
            return Portion::Nothing;
        }
        if self.odd.borrow().level() <= ODD { Portion::All } else { Portion::Piece }
    }

    /// Its turn is over, for it has nothing more to do, or because it was held back: then it is to have another
    /// when others have had theirs.
    pub(super) fn ends_turn(&self) -> bool {
        self.work.set(0);
        self.was_held_back.take()
    }

    fn wrote(&self, bytes: usize) {
        self.outbox.wrote(bytes as u64);
        self.odd.borrow_mut().forgive(1);
        self.writes.update(|writes| writes.wrapping_add(1));
        if self.blocked.get().is_some() {
            self.blocked.set(None);
        }
    }

    fn cannot_write(&self) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(Instant::now()));
        }
    }
}

/// A guard with these limits, for tests.
#[cfg(test)]
fn guard(limits: ListenerLimits) -> Rc<Guard> {
    let breaches = Rc::new(Breaches::new(&crate::metrics::Metrics::new()));
    Rc::new(Guard::new(limits.into(), None, breaches, Downstream::default()))
}
