//! Refuses calls beyond the limits of their service.
//!
//! Stands after `resolve`, which knows the limits, and before everything that costs something. A call
//! that is refused is told at once, and after which time to try again: nothing queues here.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError, CallMeta, Reply, Target},
    limit::{Asked, Gates, Limit as Reached, Passed, Refusal, Waiting},
    model::Reason,
    panics::rehearse,
};

/// Makes [`Limit`].
#[derive(Clone, Debug)]
pub struct LimitLayer(Gates);

/// Limits calls.
#[derive(Clone, Debug)]
pub struct Limit<S> {
    inner: S,
    gates: Gates,
}

impl LimitLayer {
    /// Lets calls through `gates`.
    pub const fn new(gates: Gates) -> Self {
        Self(gates)
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { inner, gates: self.0.clone() }
    }
}

impl<S: Service<Box<Call>, Response = Reply, Error = CallError>> Service<Box<Call>> for Limit<S> {
    type Response = Reply;
    type Error = CallError;
    type Future = Either<S::Future, Either<Timed<S::Future>, Ready<Result<Reply, CallError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        let target = call.meta.target();
        let Some(limits) = &target.policy.limits else {
            return Either::Left(self.inner.call(call));
        };
        let asked = Asked {
            arrived: call.meta.arrived,
            path: call.head.uri.path(),
            headers: &call.head.headers,
        };
        let route = target.rule.as_ref().filter(|rule| rule.has_limits()).map(|rule| rule.name());
        let gate = target.view.gate(limits, route, &self.gates);
        let Passed { in_flight, waiting } = match gate.enter(asked) {
            Ok(passed) => passed,
            Err(refusal) => {
                return Either::Right(Either::Right(ready(Err(refuse(target, refusal)))));
            }
        };
        if let Some(place) = in_flight {
            call.meta.places.borrow_mut().push(place);
        }
        rehearse("call begins");
        let Some(waiting) = waiting else { return Either::Left(self.inner.call(call)) };
        let meta = Rc::clone(&call.meta);
        let inner = self.inner.call(call);
        Either::Right(Either::Left(Timed {
            inner,
            waiting: Noted { waiting: Some(waiting), meta },
        }))
    }
}

/// What the caller is told, and what is counted.
pub(super) fn refuse(target: &Target, refusal: Refusal) -> CallError {
    let Refusal { limit, allowed, wait } = refusal;
    target.view.metrics.limited(limit.as_str());
    let what = match limit {
        Reached::InFlight => format!("{allowed} calls are in flight"),
        Reached::PerEndpoint => {
            format!("{allowed} calls are in flight on each endpoint that may take it")
        }
        Reached::Rate => format!("more than {allowed} calls a second"),
        Reached::Adaptive => format!("{allowed} calls wait, which is all that its latency allows"),
    };
    let service = target.view.name();
    let text = format!("service {service}: {what}; see limits.{}", limit.as_str());
    CallError::overloaded(text, wait)
}

pin_project_lite::pin_project! {
    /// A call whose answer is timed.
    #[derive(Debug)]
    pub struct Timed<F> {
        #[pin]
        inner: F,
        waiting: Noted,
    }
}

/// Notes how long an answer took, also where none came.
#[derive(Debug)]
struct Noted {
    waiting: Option<Waiting>,
    meta: Rc<CallMeta>,
}

impl<F: Future<Output = Result<Reply, CallError>>> Future for Timed<F> {
    type Output = Result<Reply, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if let Poll::Ready(replied) = &polled {
            this.waiting.end(Some(replied.as_ref()));
        }
        polled
    }
}

impl Noted {
    /// How the wait ended; none where the call was dropped.
    fn end(&mut self, replied: Option<Result<&Reply, &CallError>>) {
        let Some(waiting) = self.waiting.take() else { return };
        let now = self.meta.ledger.answered_at().unwrap_or_else(Instant::now);
        let limit = match replied {
            Some(Ok(reply)) if says_how_long_work_takes(reply) => waiting.answered(now),
            Some(Err(error)) if error.reason == Reason::DeadlineExceeded => waiting.given_up(now),
            None => waiting.given_up(now),
            _ => None,
        };
        if let Some((limit, route)) = limit {
            self.meta.target().view.metrics.adaptive_limit(route, limit);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// An error is often quicker than an answer: a service that refuses calls would seem to have become
/// fast.
fn says_how_long_work_takes(reply: &Reply) -> bool {
    let status = reply.exchange.status();
    reply.head.status.is_success() && status.is_none_or(|status| status.code() == 0)
}
