//! Ends a call when its time is over: `grpc-timeout`, or the service's `timeout`, the shorter one.
//!
//! Stands after `resolve`, which knows the service's policy. The time counts from the arrival of the
//! call, so that what the look-up took is not given twice. What cannot be done in time is not begun.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, Ready, ready};
use http::HeaderMap;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    alarm::Alarm,
    call::{Call, CallError, CallMeta, Reply, Spent, Target, millis},
    clock,
    config::{Connection, Policy},
    grpc_timeout::{self, GRPC_TIMEOUT},
    metrics::AttemptOutcome,
    model::Reason,
};

/// Makes [`Deadline`].
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer;

/// Bounds the time of calls.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

impl<S: Service<Box<Call>, Response = Reply, Error = CallError>> Service<Box<Call>>
    for Deadline<S>
{
    type Response = Reply;
    type Error = CallError;
    type Future = Either<Bounded<S::Future>, Ready<Result<Reply, CallError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        let meta = Rc::clone(&call.meta);
        let limit = limit(&call.head.headers, &meta.target().policy);
        let deadline = limit.and_then(|limit| meta.arrived.checked_add(limit));
        meta.deadline.set(deadline);
        // Only a call that has waited for its service can be late already.
        if meta.is_late(meta.ledger.resolved_at().unwrap_or(meta.arrived)) {
            return Either::Right(ready(Err(exceeded(&meta))));
        }
        let timer = deadline.map(Alarm::at);
        Either::Left(Bounded { inner: self.inner.call(call), meta, timer })
    }
}

/// How long a call with these headers may take.
pub(super) fn limit(headers: &HeaderMap, policy: &Policy) -> Option<Duration> {
    let configured = policy.timeout;
    let asked = headers.get(GRPC_TIMEOUT).and_then(|value| grpc_timeout::parse(value.as_bytes()));
    match (asked, configured) {
        (Some(asked), Some(configured)) => Some(asked.min(configured)),
        (asked, configured) => asked.or(configured),
    }
}

pin_project_lite::pin_project! {
    /// A call under a time limit. The timer goes on with the reply, whose body it bounds too.
    #[derive(Debug)]
    pub struct Bounded<F> {
        #[pin]
        inner: F,
        meta: Rc<CallMeta>,
        timer: Option<Alarm>,
    }
}

impl<F: Future<Output = Result<Reply, CallError>>> Future for Bounded<F> {
    type Output = Result<Reply, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(reply) = this.inner.poll(cx) {
            let timer = this.timer.take();
            return Poll::Ready(reply.map(|reply| Reply { deadline: timer, ..reply }));
        }
        match this.timer.as_mut().map(|timer| Pin::new(timer).poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(exceeded(this.meta))),
            _ => Poll::Pending,
        }
    }
}

/// Why a further attempt is not begun after one that has just failed with `last`: the time is over, or,
/// where each call connects anew, what is left is less than connecting took at best lately. A first
/// attempt is always begun: it is what shows how long connecting takes.
pub(super) fn too_late(meta: &CallMeta, last: &CallError, now: Instant) -> Option<CallError> {
    let target = meta.target();
    let left = meta.deadline.get()?.saturating_duration_since(now);
    if left.is_zero() {
        return Some(exceeded(meta));
    }
    let connect = connect_time(target, now).filter(|connect| left < *connect)?;
    let service = target.view.name();
    let (left, connect) = (millis(left), millis(connect));
    let text = format!(
        "service {service}: {left} ms of the deadline are left, and to connect takes {connect} ms at \
         best, so no further attempt was made ({}); the last one: {}",
        Spent::new(meta, now, None),
        last.message
    );
    Some(CallError::new(Reason::DeadlineExceeded, text))
}

/// Whether what is left of the deadline at `then` is enough for a further attempt.
pub(super) fn leaves_time(meta: &CallMeta, then: Instant) -> bool {
    let Some(deadline) = meta.deadline.get() else { return true };
    let connect = connect_time(meta.target(), then).unwrap_or_default();
    deadline.saturating_duration_since(then) > connect
}

/// How long it takes to connect at best, where a call has to.
fn connect_time(target: &Target, now: Instant) -> Option<Duration> {
    let connects = target.policy.connection == Connection::Fresh;
    connects.then(|| target.view.fastest_connect.get(now)).flatten()
}

/// What the caller is told: where the time went.
pub(crate) fn exceeded(meta: &CallMeta) -> CallError {
    let now = clock::now();
    let service = meta.target().view.name();
    let limit = meta.deadline.get().unwrap_or(now).duration_since(meta.arrived);
    let limit = humantime::format_duration(limit);
    let place = match meta.attempt() {
        0 => "before an endpoint was chosen".to_owned(),
        attempt => format!("in attempt {attempt}, on {}", meta.address()),
    };
    let spent = Spent::new(meta, now, Some(AttemptOutcome::Cancelled)).to_string();
    let spent = if spent.is_empty() { spent } else { format!(" ({spent})") };
    let text = format!("service {service}: the deadline of {limit} passed {place}{spent}");
    CallError::new(Reason::DeadlineExceeded, text)
}
