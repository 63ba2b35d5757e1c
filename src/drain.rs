//! Stopping without losing a call.
//!
//! The control thread says once that the process stops; each worker keeps a [`Drain`] for its
//! connections and calls, because those must not cross threads.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

/// How long calls that are still on their way to us are taken after connections were told to go
/// away. A caller that goes on opening streams for longer does not heed GOAWAY.
const GRACE: Duration = Duration::from_secs(2);

/// Whether a worker is stopping.
#[derive(Debug, Default)]
pub struct Drain {
    began: Cell<Option<Instant>>,
    begins: Notify,
    /// Whether calls that are left end now,
    ends_calls: Cell<bool>,
    /// and who they are.
    calls: RefCell<Slab<Waker>>,
}

impl Drain {
    /// Begins: connections are told to go away.
    pub fn begin(&self) {
        if self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
            self.begins.notify_waiters();
        }
    }

    /// Waits until stopping begins; at once if it has.
    pub async fn begun(&self) {
        let begins = self.begins.notified();
        if self.began.get().is_none() {
            begins.await;
        }
    }

    /// Whether calls that arrive now are refused.
    pub fn refuses_calls(&self) -> bool {
        self.began.get().is_some_and(|began| began.elapsed() > GRACE)
    }

    /// Has calls that are left end by themselves: each can still be told why.
    pub fn end_calls(&self) {
        self.ends_calls.set(true);
        self.calls.borrow().iter().for_each(|(_, call)| call.wake_by_ref());
    }
}

/// How long a call may stay; not beyond [`Drain::end_calls`].
#[derive(Debug)]
pub struct Stay {
    drain: Rc<Drain>,
    place: Option<usize>,
}

impl Stay {
    /// For one call.
    pub const fn new(drain: Rc<Drain>) -> Self {
        Self { drain, place: None }
    }

    /// Ready once the call has to end. All polls are by one task.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.drain.ends_calls.get() {
            return Poll::Ready(());
        }
        if self.place.is_none() {
            self.place = Some(self.drain.calls.borrow_mut().insert(cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // The waker may hold the last piece of a task: it goes when nothing is borrowed.
        let _waker = self.place.map(|place| self.drain.calls.borrow_mut().remove(place));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_to_a_stopping_proxy_are_taken_and_late_ones_are_refused() {
        let drain = Drain::default();
        assert!(!drain.refuses_calls());
        tokio::join!(drain.begun(), async { drain.begin() });
        drain.begun().await;
        assert!(!drain.refuses_calls());
        tokio::time::advance(GRACE + Duration::from_millis(1)).await;
        assert!(drain.refuses_calls());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_left_are_woken_to_end_and_those_that_have_ended_are_forgotten() {
        let drain = Rc::new(Drain::default());
        let stay = || {
            let mut stay = Stay::new(Rc::clone(&drain));
            async move { poll_fn(|cx| stay.poll(cx)).await }
        };
        let never = tokio::time::timeout(Duration::from_secs(3600), stay());
        assert!(never.await.is_err());
        assert!(drain.calls.borrow().is_empty());
        tokio::join!(stay(), stay(), async { drain.end_calls() });
        stay().await;
        assert!(drain.calls.borrow().is_empty());
    }
}
