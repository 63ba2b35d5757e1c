//! Connects the chosen endpoint: a fresh connection, one made ahead, or a place on a shared one.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tower::{Layer, Service};

use super::Connected;
use crate::{
    call::{AttemptError, Call, CallError, Progress, Reply},
    connect::{Connector, DialError, Dialing, Upstream},
    model::Reason,
};

/// Makes [`Connect`].
#[derive(Clone, Debug)]
pub struct ConnectLayer(Rc<Connector>);

/// Connects endpoints.
#[derive(Clone, Debug)]
pub struct Connect<S> {
    inner: S,
    connector: Rc<Connector>,
}

impl ConnectLayer {
    /// Takes connections from `connector`.
    pub const fn new(connector: Rc<Connector>) -> Self {
        Self(connector)
    }
}

impl<S> Layer<S> for ConnectLayer {
    type Service = Connect<S>;

    fn layer(&self, inner: S) -> Connect<S> {
        Connect { inner, connector: Rc::clone(&self.0) }
    }
}

impl<S> Service<Box<Call>> for Connect<S>
where
    S: Service<Connected, Response = Reply, Error = AttemptError> + Clone,
{
    type Response = Reply;
    type Error = AttemptError;
    type Future = Connecting<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Box<Call>) -> Connecting<S> {
        let (target, endpoint) = (call.meta.target(), call.meta.endpoint());
        let ready = self.connector.ready(&endpoint, &target.policy);
        let metrics = &target.view.metrics;
        self.connector.prepare(&endpoint, &target.policy, metrics);
        if let Some(upstream) = ready {
            return Connecting::There { going: self.inner.call(Connected { call, upstream }) };
        }
        // Not less for a call whose deadline is near: `deadline` ends that by itself, and others may
        // be waiting for the same connection.
        let limit = target.policy.connect_timeout;
        let dialing = self.connector.dial(&endpoint, &target.policy, limit, metrics);
        Connecting::Dialing { dialing, call: Some(call), inner: self.inner.clone() }
    }
}

pin_project_lite::pin_project! {
    /// An attempt that is being connected, then forwarded.
    #[project = Stage]
    #[allow(missing_debug_implementations, missing_docs)]
    pub enum Connecting<S: Service<Connected>> {
        /// Connected.
        There { #[pin] going: S::Future },
        /// Waiting for the connection; the call goes on when it is there.
        Dialing { dialing: Dialing, call: Option<Box<Call>>, inner: S },
    }
}

impl<S> Future for Connecting<S>
where
    S: Service<Connected, Response = Reply, Error = AttemptError>,
{
    type Output = Result<Reply, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let going = match self.as_mut().project() {
                Stage::There { going } => return going.poll(cx),
                Stage::Dialing { dialing, call, inner } => {
                    let dialed: Result<Upstream, DialError> = ready!(dialing.as_mut().poll(cx));
                    // Only taken when this stage is left.
                    let Some(call) = call.take() else { return Poll::Pending };
                    match dialed {
                        Ok(upstream) => inner.call(Connected { call, upstream }),
                        Err(error) => return Poll::Ready(Err(failed(call, &error))),
                    }
                }
            };
            self.set(Self::There { going });
        }
    }
}

/// Nothing of the call was sent: it may be tried on another endpoint.
fn failed(call: Box<Call>, error: &DialError) -> AttemptError {
    let reason = if error.is_protocol() { Reason::UpstreamProtocol } else { Reason::ConnectFailed };
    let service = call.meta.target().view.name();
    let error_text = format!("service {service}: {error}");
    AttemptError {
        error: CallError::new(reason, error_text),
        outcome: error.outcome(),
        progress: Progress::Unprocessed(call),
    }
}
