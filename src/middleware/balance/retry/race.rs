//! Attempts of one call, side by side.
//!
//! [`CallMeta`] knows of one attempt that is under way, which is all that most calls ever have. So
//! what belongs to one attempt is put there before it is polled, and taken out before another one is.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use smallvec::SmallVec;
use tokio::time::Instant;
use tower::Service;

use crate::{
    alarm::Alarm,
    call::{AttemptError, Call, CallMeta, Reply},
    clock,
    metrics::AttemptOutcome,
    middleware::balance::{end, feedback},
    model::InFlight,
};

/// The attempts that are under way.
pub(super) struct Race<S: Service<Box<Call>>> {
    inner: S,
    meta: Rc<CallMeta>,
    /// Hardly ever more than one.
    running: SmallVec<[Running<S::Future>; 1]>,
}

/// One attempt.
pub(super) struct Running<F> {
    going: Pin<Box<F>>,
    /// Its place in the ledger.
    number: usize,
    /// What the call's meta holds of it while it is the current one; none where it is.
    away: Option<Away>,
}

struct Away {
    in_flight: Option<InFlight>,
    waiting: Option<Instant>,
}

/// What happens next.
#[expect(clippy::large_enum_variant, reason = "made and taken apart once an attempt")]
pub(super) enum Event<F> {
    /// An attempt has ended. It is the current one.
    Ended(Running<F>, Result<Reply, AttemptError>),
    /// The time for another one has come.
    Due,
}

impl<S> Race<S>
where
    S: Service<Box<Call>, Response = Reply, Error = AttemptError>,
{
    pub(super) const fn new(inner: S, meta: Rc<CallMeta>) -> Self {
        Self { inner, meta, running: SmallVec::new_const() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins the attempt that has just been chosen and noted in the ledger.
    pub(super) fn begin(&mut self, call: Box<Call>) {
        let number = self.meta.ledger.current();
        let going = Box::pin(self.inner.call(call));
        self.running.push(Running { going, number, away: None });
    }

    /// Waits until an attempt ends, or for `timer`.
    pub(super) async fn event(&mut self, timer: Option<&mut Alarm>) -> Event<S::Future> {
        let mut timer = timer;
        poll_fn(|cx| {
            for at in 0..self.running.len() {
                self.pause();
                let running = &mut self.running[at];
                running.resume(&self.meta);
                if let Poll::Ready(ended) = running.going.as_mut().poll(cx) {
                    return Poll::Ready(Event::Ended(self.running.swap_remove(at), ended));
                }
            }
            match &mut timer {
                Some(timer) => Pin::new(&mut **timer).poll(cx).map(|()| Event::Due),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// No attempt is the current one: another may be chosen.
    pub(super) fn pause(&mut self) {
        for running in self.running.iter_mut().filter(|running| running.away.is_none()) {
            running.away = Some(Away {
                in_flight: self.meta.in_flight.take(),
                waiting: self.meta.waiting.take(),
            });
        }
    }

    /// `winner`, which is the current attempt, has the answer: the others end.
    pub(super) fn won(&mut self, mut winner: Running<S::Future>) {
        if self.running.is_empty() {
            return;
        }
        winner.away =
            Some(Away { in_flight: self.meta.in_flight.take(), waiting: self.meta.waiting.take() });
        for mut loser in std::mem::take(&mut self.running) {
            loser.resume(&self.meta);
            feedback::given_up(&self.meta);
            end(&self.meta, AttemptOutcome::Cancelled, clock::now());
        }
        winner.resume(&self.meta);
    }
}

impl<F> Running<F> {
    fn resume(&mut self, meta: &CallMeta) {
        if let Some(Away { in_flight, waiting }) = self.away.take() {
            *meta.in_flight.borrow_mut() = in_flight;
            meta.waiting.set(waiting);
        }
        meta.ledger.go_on_with(self.number);
    }
}

/// The call was given up: by its caller, or because its time is over.
impl<S: Service<Box<Call>>> Drop for Race<S> {
    fn drop(&mut self) {
        feedback::given_up(&self.meta);
        // The end of the call counts the current one.
        for mut running in self.running.drain(..).filter(|running| running.away.is_some()) {
            let current = self.meta.in_flight.take();
            running.resume(&self.meta);
            feedback::given_up(&self.meta);
            end(&self.meta, AttemptOutcome::Cancelled, clock::now());
            *self.meta.in_flight.borrow_mut() = current;
        }
    }
}
