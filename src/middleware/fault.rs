//! Makes the trouble that a route asks for: holds a share of its calls up, aborts a share.
//!
//! Stands below `deadline`, whose time goes on while a call is held up, and above `balance`: no
//! endpoint is chosen for a call before it goes on. A call that is given up is dropped, and its wait
//! with it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError, CallMeta},
    clock, config,
    model::{GrpcStatus, Reason},
};

/// Makes [`Fault`].
#[derive(Clone, Copy, Debug)]
pub struct FaultLayer;

/// Holds calls up, and aborts calls.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
}

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Fault<S> {
        Fault { inner }
    }
}

impl<S> Service<Box<Call>> for Fault<S>
where
    S: Service<Box<Call>, Error = CallError> + Clone + 'static,
{
    type Response = S::Response;
    type Error = CallError;
    #[allow(clippy::type_complexity)]
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<S::Response, CallError>>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        let fault = call.meta.target().rule.as_ref().and_then(|rule| rule.fault());
        let trouble = fault.map(Trouble::draw).unwrap_or_default();
        if trouble.is_none() {
            return Either::Left(self.inner.call(call));
        }
        let mut inner = self.inner.clone();
        Either::Right(Box::pin(async move {
            trouble.make(&call.meta).await?;
            inner.call(call).await
        }))
    }
}

/// What falls to one call.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    delay: Option<Duration>,
    abort: Option<GrpcStatus>,
}

impl Trouble {
    fn draw(fault: &config::Fault) -> Self {
        let takes = |share: config::Percent| share.takes(fastrand::u32(..));
        Self {
            delay: fault.delay.filter(|(_, share)| takes(*share)).map(|(delay, _)| delay),
            abort: fault.abort.filter(|(_, share)| takes(*share)).map(|(status, _)| status),
        }
    }

    const fn is_none(self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }

    async fn make(self, meta: &CallMeta) -> Result<(), CallError> {
        let target = meta.target();
        if let Some(delay) = self.delay {
            target.view.metrics.fault("delay");
            tokio::time::sleep(delay).await;
            meta.ledger.held_up(clock::now());
        }
        let Some(status) = self.abort else { return Ok(()) };
        target.view.metrics.fault("abort");
        let route = target.rule.as_ref().map_or("", |rule| rule.name());
        let service = target.view.name();
        let message =
            format!("service {service}: aborted on purpose, by the fault of route {route}");
        Err(CallError { statuses: status.into(), ..CallError::new(Reason::Fault, message) })
    }
}
