//! Counts every call, writes the access log, and records the calls that failed or were slow.
//!
//! Outermost, but for nothing but a note in the call's meta: a gRPC status is in the trailers, so a
//! call is only over when its body is, long after this stage has returned.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::judge;
use crate::{
    access_log::AccessLog,
    call::{Call, CallMeta, Kind, Observer, Outcome},
    clock,
    live::Followed,
    metrics::ServiceMetrics,
    model::GrpcStatus,
    recent::{Intake, Recorder},
    view::Views,
};

/// Makes [`Observe`].
#[derive(Clone, Debug)]
pub struct ObserveLayer(Rc<Counting>);

/// Counts calls.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    counting: Rc<Counting>,
}

#[derive(Debug)]
struct Counting {
    views: Rc<Views>,
    live: Rc<Followed>,
    log: AccessLog,
    recorder: Recorder,
}

impl ObserveLayer {
    /// Counts in the metrics of `views`, writes lines to `log` in the form that `live` asks for, and hands
    /// what failed or was slow to `recent`.
    pub fn new(views: Rc<Views>, live: Rc<Followed>, log: AccessLog, recent: Intake) -> Self {
        Self(Rc::new(Counting { views, live, log, recorder: Recorder::new(recent) }))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, counting: Rc::clone(&self.0) }
    }
}

impl<S: Service<Box<Call>>> Service<Box<Call>> for Observe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> S::Future {
        let observer = Rc::clone(&self.counting);
        call.meta.observe(observer);
        self.inner.call(call)
    }
}

impl Observer for Counting {
    fn ended(&self, call: &CallMeta, outcome: Outcome) {
        let now = clock::now();
        let took = now - call.arrived;
        let metrics = match call.target.get() {
            Some(target) => &target.view.metrics,
            // The in-flight gauge of a known service rose when the call was resolved.
            None => {
                self.views.unknown().call_began();
                self.views.unknown()
            }
        };
        if call.in_flight.borrow().is_some() {
            metrics.attempt_ended(outcome.of_attempt());
            judge::ended(call, outcome);
        }
        count(metrics, call.kind, outcome, took);
        self.log.write(self.live.newest().access_log, call, outcome, now);
        self.recorder.ended(call, outcome, now);
    }
}

fn count(metrics: &ServiceMetrics, kind: Kind, outcome: Outcome, took: std::time::Duration) {
    /// What nginx logs when the caller goes away before the answer; HTTP has no status for it.
    const CLIENT_CLOSED: u16 = 499;
    match (kind, outcome) {
        (Kind::Grpc, Outcome::Answered { grpc, .. }) => metrics.grpc_call_ended(grpc, None, took),
        (Kind::Grpc, Outcome::Failed(_, statuses)) => {
            metrics.grpc_call_ended(statuses.grpc, outcome.error(kind), took);
        }
        (Kind::Grpc, Outcome::Reset) => metrics.grpc_call_ended(GrpcStatus::UNKNOWN, None, took),
        (Kind::Grpc, Outcome::Cancelled) => {
            metrics.grpc_call_ended(GrpcStatus::CANCELLED, None, took);
        }
        (Kind::Http, Outcome::Answered { http, .. }) => metrics.http_call_ended(http, None, took),
        (Kind::Http, Outcome::Failed(_, statuses)) => {
            metrics.http_call_ended(statuses.http, outcome.error(kind), took);
        }
        (Kind::Http, Outcome::Reset) => metrics.http_call_ended(502, None, took),
        (Kind::Http, Outcome::Cancelled) => metrics.http_call_ended(CLIENT_CLOSED, None, took),
    }
}
