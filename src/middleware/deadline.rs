//! Ends a call when its time is over: `grpc-timeout`, or the service's `timeout`, the shorter one.
//!
//! Stands after `resolve`, which knows the service's policy. The time counts from the arrival of the
//! call, so that what the look-up took is not given twice.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError, CallMeta, Reply},
    grpc_timeout::{self, GRPC_TIMEOUT},
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
    type Future = Bounded<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Bounded<S::Future> {
        let meta = Rc::clone(&call.meta);
        let limit = limit(&call.head.headers, &meta);
        let deadline = limit.and_then(|limit| meta.arrived.checked_add(limit));
        meta.deadline.set(deadline);
        let timer = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Bounded { inner: self.inner.call(call), meta, timer }
    }
}

fn limit(headers: &HeaderMap, meta: &CallMeta) -> Option<Duration> {
    let configured = meta.target().policy.timeout;
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
        timer: Option<Pin<Box<Sleep>>>,
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
        match this.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(exceeded(this.meta))),
            _ => Poll::Pending,
        }
    }
}

/// What the caller is told: where the time went.
pub(crate) fn exceeded(meta: &CallMeta) -> CallError {
    let service = meta.target().view.name();
    let limit = meta.deadline.get().unwrap_or_else(Instant::now).duration_since(meta.arrived);
    let limit = humantime::format_duration(limit);
    let place = match (meta.attempt(), meta.tried.borrow().last()) {
        (attempt, Some(endpoint)) => {
            format!("in attempt {attempt}, on {}", endpoint.record.address)
        }
        (_, None) => "before an endpoint was chosen".to_owned(),
    };
    let text = format!("service {service}: the deadline of {limit} passed {place}");
    CallError::new(Reason::DeadlineExceeded, text)
}
