//! Handshakes take turns on their worker, so that they never keep it from its calls.
//!
//! One step of a handshake (a signature, a chain to be checked) takes the worker some hundred
//! microseconds. A thousand clients that come at once would have calls wait for all of them; by turns,
//! everything else that can go on does so between two steps.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{sync::Semaphore, task::yield_now};
use tokio_util::sync::PollSemaphore;

/// Handshakes of applications that may be under way on a worker. Those that come then would wait longer
/// than it takes to come again.
const MOST: usize = 1000;

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// A handshake under way; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Place(());

impl Place {
    /// None where too many are under way.
    pub(super) fn take() -> Option<Self> {
        (UNDER_WAY.get() < MOST).then(|| {
            UNDER_WAY.set(UNDER_WAY.get() + 1);
            Self(())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}

/// `handshake`, each poll of which waits for its turn.
pub(super) fn by_turns<F: Future>(handshake: F) -> ByTurns<F> {
    ByTurns { handshake, turn: PollSemaphore::new(TURN.with(Arc::clone)) }
}

pin_project_lite::pin_project! {
    /// A handshake that takes turns.
    #[derive(Debug)]
    pub(super) struct ByTurns<F> {
        #[pin]
        handshake: F,
        turn: PollSemaphore,
    }
}

impl<F: Future> Future for ByTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // None would mean that it was closed, which it never is.
        let turn = ready!(this.turn.poll_acquire(cx));
        let polled = this.handshake.poll(cx);
        tokio::spawn(async move {
            yield_now().await;
            drop(turn);
        });
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, rc::Rc};

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[tokio::test]
    async fn others_go_on_between_two_steps_of_handshakes() {
        let tasks = LocalSet::new();
        let polled = async {
            let steps = Rc::<Cell<usize>>::default();
            let mut most = 0;
            let handshakes: Vec<_> = (0..50)
                .map(|_| {
                    let (steps, mut left) = (Rc::clone(&steps), 3);
                    spawn_local(by_turns(poll_fn(move |cx| {
                        steps.set(steps.get() + 1);
                        left -= 1;
                        cx.waker().wake_by_ref();
                        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
                    })))
                })
                .collect();
            let mut before = 0;
            while !handshakes.iter().all(|handshake| handshake.is_finished()) {
                yield_now().await;
                most = most.max(steps.get() - before);
                before = steps.get();
            }
            (most, steps.get())
        };
        let (most, all) = tasks.run_until(polled).await;
        assert_eq!(all, 150);
        assert!(most <= 2, "{most} steps without a break");
    }

    #[test]
    fn there_are_only_so_many_places() {
        let places: Vec<_> = std::iter::from_fn(Place::take).collect();
        assert_eq!(places.len(), MOST);
        drop(places);
        assert!(Place::take().is_some());
    }
}
