//! What calls have handed over for their connection and the system has not taken yet.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
};

/// Bytes that may wait, whoever they are from: as many as keep a connection busy.
const MOST: u64 = 1 << 20;

/// Counts what goes in and comes out, and says when it is full. Without this a thousand answers would each
/// wait as what may wait for one, however little the application reads.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Bytes of bodies that went in, and all bytes that came out, since it was last empty.
    handed: Cell<u64>,
    written: Cell<u64>,
    /// Calls that wait until there is room.
    waiting: RefCell<Vec<Waker>>,
}

impl Outbox {
    pub(super) fn handed(&self, bytes: u64) {
        self.handed.update(|handed| handed + bytes);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written.update(|written| written + bytes);
        if self.holds() <= MOST / 2 {
            self.wake();
        }
    }

    /// All has been taken, but for what has no window.
    pub(super) fn is_empty_now(&self) {
        self.handed.set(0);
        self.written.set(0);
        self.wake();
    }

    /// Whether the call is to wait, which is then woken when there is room.
    pub(super) fn is_full(&self, cx: &Context<'_>) -> bool {
        let is_full = self.holds() > MOST;
        if is_full {
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|other| other.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        is_full
    }

    fn holds(&self) -> u64 {
        self.handed.get().saturating_sub(self.written.get())
    }

    fn wake(&self) {
        if !self.waiting.borrow().is_empty() {
            // Out of the cell first: who is woken may come back.
            let waiting = self.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        }
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

    #[test]
    fn calls_wait_while_it_is_full_and_are_woken_once_half_of_it_is_out() {
        let (outbox, count) = (Outbox::default(), Arc::<Count>::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        outbox.handed(MOST);
        assert!(!outbox.is_full(&cx));
        outbox.handed(1);
        assert!(outbox.is_full(&cx) && outbox.is_full(&cx));
        outbox.wrote(MOST / 2);
        assert_eq!(count.0.load(Relaxed), 0);
        outbox.wrote(1);
        assert_eq!(count.0.load(Relaxed), 1, "once, however often it asked");
        assert!(!outbox.is_full(&cx));
        outbox.handed(2 * MOST);
        assert!(outbox.is_full(&cx));
        outbox.is_empty_now();
        assert_eq!(count.0.load(Relaxed), 2);
        assert!(!outbox.is_full(&cx));
    }
}
