//! How much is read of shared connections at a time.
//!
//! What is read of one goes to the calls on it, and each of them says what it cannot hand on. So a connection that
//! brings much waits until they have been asked: read to its end, it would bring what the windows of all its calls
//! allow, however much of that is nobody's wish any more.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

/// Bytes that are read of one connection before others have had their turn: four of the largest frames that most
/// peers send.
const PORTION: usize = 64 << 10;

/// The shared connections of one worker, of which those that bring much wait for calls that wait for their turn.
#[derive(Debug, Default)]
pub struct Wires {
    /// Calls that wait, and how many have had their turn.
    calls: Cell<u32>,
    served: Cell<u64>,
    /// Connections that wait, and how many calls will have had their turn when they need not any more.
    waiting: RefCell<VecDeque<(u64, Rc<Place>)>>,
}

/// Wakes a connection that waits; empty while it does not.
type Place = RefCell<Option<Waker>>;

/// What one connection has brought since others had their turn.
#[derive(Debug)]
pub(super) struct Portion {
    wires: Rc<Wires>,
    came: usize,
    place: Rc<Place>,
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
        while let Some(place) = self.next_due() {
            // Empty where the connection is gone.
            place.take().into_iter().for_each(Waker::wake);
        }
    }

    fn next_due(&self) -> Option<Rc<Place>> {
        let mut waiting = self.waiting.borrow_mut();
        waiting
            .front()
            .is_some_and(|(at, _)| *at <= self.served.get())
            .then(|| waiting.pop_front())?
            .map(|(_, place)| place)
    }

    /// `place` waits until all calls that wait now have had their turn.
    fn wait(&self, place: &Rc<Place>, waker: &Waker) {
        place.replace(Some(waker.clone()));
        let at = self.served.get() + u64::from(self.calls.get());
        self.waiting.borrow_mut().push_back((at, Rc::clone(place)));
    }
}

impl Portion {
    /// Of a connection of which nothing has been read.
    pub(super) fn new(wires: &Rc<Wires>) -> Self {
        Self { wires: Rc::clone(wires), came: 0, place: Rc::default() }
    }

    /// Whether no more is to be read for now; the connection is then woken when there is.
    pub(super) fn is_over(&mut self, cx: &Context<'_>) -> bool {
        if let Some(waker) = &mut *self.place.borrow_mut() {
            waker.clone_from(cx.waker());
            return true;
        }
        if self.came < PORTION {
            return false;
        }
        self.came = 0;
        if self.wires.calls() > 0 {
            self.wires.wait(&self.place, cx.waker());
        } else {
            // Behind the calls that were woken by what was read.
            cx.waker().wake_by_ref();
        }
        true
    }

    /// So many bytes have come; none where there are no more for now.
    pub(super) const fn came(&mut self, bytes: usize) {
        self.came = if bytes == 0 { 0 } else { self.came + bytes };
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

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A connection, and how often it was woken.
    struct Wire {
        portion: Portion,
        woken: Arc<Count>,
    }

    impl Wire {
        fn of(wires: &Rc<Wires>) -> Self {
            Self { portion: Portion::new(wires), woken: Arc::default() }
        }

        /// Reads as long as it may.
        fn read(&mut self) -> usize {
            let waker = Waker::from(Arc::clone(&self.woken));
            let mut all = 0;
            while !self.portion.is_over(&Context::from_waker(&waker)) {
                self.portion.came(16 << 10);
                all += 16 << 10;
            }
            all
        }

        fn woken(&self) -> u32 {
            self.woken.0.load(Relaxed)
        }
    }

    #[test]
    fn a_connection_is_read_by_the_portion_and_goes_on_at_once_while_no_call_waits() {
        let mut wire = Wire::of(&Rc::default());
        for times in 1..4 {
            assert_eq!((wire.read(), wire.woken()), (PORTION, times));
        }
    }

    #[test]
    fn what_comes_little_by_little_never_waits() {
        let wires = Rc::<Wires>::default();
        wires.call_waits();
        let mut portion = Portion::new(&wires);
        for _ in 0..10 {
            portion.came(PORTION - 1);
            assert!(!portion.is_over(&Context::from_waker(Waker::noop())));
            portion.came(0);
        }
    }

    #[test]
    fn a_connection_that_brings_much_waits_for_the_calls_that_wait_and_no_longer() {
        let wires = Rc::<Wires>::default();
        let (mut early, mut late, gone) = (Wire::of(&wires), Wire::of(&wires), Wire::of(&wires));
        (0..2).for_each(|_| wires.call_waits());
        assert_eq!(early.read(), PORTION);
        wires.wait(&gone.portion.place, &Waker::from(Arc::clone(&gone.woken)));
        wires.call_waits();
        assert_eq!(late.read(), PORTION);
        let woken_of = Arc::clone(&gone.woken);
        drop(gone);
        wires.call_goes_on();
        assert_eq!((early.read(), early.woken()), (0, 0), "one call still waits that did before");
        wires.call_goes_on();
        assert_eq!((early.woken(), late.woken()), (1, 0));
        wires.call_goes_on();
        assert_eq!((early.woken(), late.woken(), woken_of.0.load(Relaxed)), (1, 1, 0));
        assert_eq!((early.read(), late.read()), (PORTION, PORTION));
    }
}
