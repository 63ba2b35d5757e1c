//! How much is read of shared connections at a time.
//!
//! To read a bulk of bytes keeps a worker busy, and what is read of a connection goes to the calls on it, each of which
//! says what it cannot hand on. So once much has come, connections wait until others have had their turn and those calls
//! have been asked: read to its end, a connection would bring what the windows of all its calls allow, however much of
//! that is nobody's wish any more.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

use tokio::task::{spawn_local, yield_now};

use crate::panics::{Task, again};

/// Bytes that are read before the worker looks what has come for anybody else: two of the largest frames that most
/// peers send.
const PORTION: usize = 32 << 10;

/// The shared connections of one worker.
#[derive(Debug)]
pub struct Wires {
    /// Bytes that may be read for now.
    left: Cell<usize>,
    /// Whether there is somebody who allows more.
    is_kept: Cell<bool>,
    /// Connections that wait, and how many calls will have had their turn when they need not any more.
    waiting: RefCell<VecDeque<(u64, Rc<Place>)>>,
    /// Calls that wait for their turn, and how many have had it.
    calls: Cell<u32>,
    served: Cell<u64>,
}

/// Wakes a connection that waits; empty while it does not.
type Place = RefCell<Option<Waker>>;

/// The part of one connection in what is read.
#[derive(Debug)]
pub(super) struct Portion {
    wires: Rc<Wires>,
    place: Rc<Place>,
}

impl Default for Wires {
    fn default() -> Self {
        Self {
            left: Cell::new(PORTION),
            is_kept: Cell::default(),
            waiting: RefCell::default(),
            calls: Cell::default(),
            served: Cell::default(),
        }
    }
}

impl Wires {
    /// Calls that wait for their turn.
    pub fn calls(&self) -> u32 {
        self.calls.get()
    }

    /// One more call waits for its turn.
    pub fn call_waits(&self) {
        self.calls.update(|calls| calls + 1);
    }

    /// One of them has its turn now.
    pub fn call_goes_on(&self) {
        self.calls.update(|calls| calls - 1);
        self.served.update(|served| served + 1);
    }

    /// `place` waits for the connections that do, and for all calls that do.
    fn wait(&self, place: &Rc<Place>, cx: &Context<'_>) {
        place.replace(Some(cx.waker().clone()));
        let at = self.served.get() + u64::from(self.calls.get());
        self.waiting.borrow_mut().push_back((at, Rc::clone(place)));
    }

    /// Allows one portion after the other, until nobody waits for any.
    async fn keep(self: Rc<Self>) {
        while self.is_kept.get() {
            // Until the runtime has looked what has come for others.
            yield_now().await;
            self.left.set(PORTION);
            let next = self.next_due();
            self.is_kept.set(next.is_some() || !self.waiting.borrow().is_empty());
            // None where the connection is gone.
            let waker = next.and_then(|place| place.take());
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn next_due(&self) -> Option<Rc<Place>> {
        let mut waiting = self.waiting.borrow_mut();
        let is_due = waiting.front().is_some_and(|(at, _)| *at <= self.served.get());
        if is_due { waiting.pop_front().map(|(_, place)| place) } else { None }
    }
}

impl Portion {
    /// Of a connection of which nothing has been read.
    pub(super) fn new(wires: &Rc<Wires>) -> Self {
        Self { wires: Rc::clone(wires), place: Rc::default() }
    }

    /// Whether no more is to be read for now; the connection is then woken when there is.
    pub(super) fn is_over(&self, cx: &Context<'_>) -> bool {
        if let Some(waker) = &mut *self.place.borrow_mut() {
            waker.clone_from(cx.waker());
            return true;
        }
        let is_over = self.wires.left.get() == 0;
        if is_over {
            self.wires.wait(&self.place, cx);
        }
        is_over
    }

    /// So many bytes have come.
    #[inline]
    pub(super) fn came(&self, bytes: usize) {
        let Wires { left, is_kept, .. } = &*self.wires;
        left.update(|left| left.saturating_sub(bytes));
        // Not for each: there may be no more for a while.
        if left.get() <= PORTION / 2 && !is_kept.replace(true) {
            let wires = Rc::clone(&self.wires);
            spawn_local(again(Task::Upstream, move || Rc::clone(&wires).keep()));
        }
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.place.take();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use tokio::task::LocalSet;

    use super::*;

    const PIECE: usize = 16 << 10;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A connection of which there is always more to read, and how often it was woken.
    struct Wire {
        portion: Portion,
        woken: Arc<Count>,
    }

    impl Wire {
        fn of(wires: &Rc<Wires>) -> Self {
            Self { portion: Portion::new(wires), woken: Arc::default() }
        }

        /// Reads as long as it may.
        fn read(&self) -> usize {
            let waker = Waker::from(Arc::clone(&self.woken));
            let mut all = 0;
            while !self.portion.is_over(&Context::from_waker(&waker)) {
                self.portion.came(PIECE);
                all += PIECE;
            }
            all
        }

        fn woken(&self) -> u32 {
            self.woken.0.load(Relaxed)
        }
    }

    #[tokio::test]
    async fn connections_that_bring_much_are_read_one_after_the_other() {
        let wires = Rc::<Wires>::default();
        let all: Vec<_> = (0..3).map(|_| Wire::of(&wires)).collect();
        let test = async {
            assert_eq!(all[0].read(), PORTION);
            assert_eq!(all[1].read() + all[2].read(), 0, "others have not had their turn");
            for turn in 0..6 {
                let next = &all[turn % 3];
                let before = next.woken();
                while next.woken() == before {
                    assert_eq!(all.iter().map(Wire::read).sum::<usize>(), 0, "it is not woken");
                    yield_now().await;
                }
                assert_eq!(next.read(), PORTION);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_comes_little_by_little_never_waits() {
        let wires = Rc::<Wires>::default();
        wires.call_waits();
        let test = async {
            let portion = Portion::new(&wires);
            for _ in 0..100 {
                assert!(!portion.is_over(&Context::from_waker(Waker::noop())));
                portion.came(PORTION / 2);
                yield_now().await;
                yield_now().await;
            }
            assert!(!wires.is_kept.get(), "nobody is left who allows more");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_connection_that_brings_much_waits_for_the_calls_that_wait_and_no_longer() {
        let wires = Rc::<Wires>::default();
        let (early, late, gone) = (Wire::of(&wires), Wire::of(&wires), Wire::of(&wires));
        let served = async {
            wires.call_goes_on();
            for _ in 0..10 {
                yield_now().await;
            }
        };
        let test = async {
            (0..2).for_each(|_| wires.call_waits());
            assert_eq!((early.read(), gone.read()), (PORTION, 0));
            wires.call_waits();
            assert_eq!(late.read(), 0);
            let never = Arc::clone(&gone.woken);
            drop(gone);
            served.await;
            assert_eq!(early.woken(), 0, "one call still waits that did before");
            wires.call_goes_on();
            while early.woken() == 0 {
                yield_now().await;
            }
            assert_eq!((early.read(), late.woken()), (PORTION, 0));
            wires.call_goes_on();
            while late.woken() == 0 {
                yield_now().await;
            }
            assert_eq!(never.0.load(Relaxed), 0);
        };
        LocalSet::new().run_until(test).await;
    }
}
