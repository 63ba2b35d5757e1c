//! Connects the chosen endpoint: a fresh connection, one made ahead, or a place on a shared one.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tower::{Layer, Service};

use super::{Connected, deadline::exceeded};
use crate::{
    call::{AttemptError, Call, CallError, Progress, Reply},
    clock,
    config::Connection,
    connect::{Connector, DialError, Dialing, Upstream},
    discovery::Directory,
    metrics::AttemptOutcome,
    model::Reason,
};

/// Makes [`Connect`].
#[derive(Clone, Debug)]
pub struct ConnectLayer(Rc<Parts>);

/// Connects endpoints.
#[derive(Clone, Debug)]
pub struct Connect<S> {
    inner: S,
    parts: Rc<Parts>,
}

#[derive(Debug)]
struct Parts {
    connector: Connector,
    directory: Directory,
}

impl ConnectLayer {
    /// Takes connections from `connector`, and tells `directory` of endpoints that cannot be
    /// connected time and again.
    pub fn new(connector: Connector, directory: Directory) -> Self {
        Self(Rc::new(Parts { connector, directory }))
    }
}

impl<S> Layer<S> for ConnectLayer {
    type Service = Connect<S>;

    fn layer(&self, inner: S) -> Connect<S> {
        Connect { inner, parts: Rc::clone(&self.0) }
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
        let Parts { connector, .. } = &*self.parts;
        let (target, endpoint) = (call.meta.target(), call.meta.endpoint());
        let (service, metrics) = (target.view.name(), &target.view.metrics);
        let ready = connector.ready(&endpoint, &target.policy);
        connector.prepare(&endpoint, service, &target.policy, metrics);
        drop(endpoint);
        if target.policy.connection != Connection::Pooled {
            call.meta.downstream.dials();
        }
        if let Some(upstream) = ready {
            return Connecting::There { going: self.inner.call(Connected { call, upstream }) };
        }
        // Not less time for a call whose deadline is near: `deadline` ends that by itself, and others may
        // be waiting for the same connection.
        let dialing = connector.dial(&call.meta.endpoint(), service, &target.policy, metrics);
        call.meta.ledger.dials();
        let (parts, inner) = (Rc::clone(&self.parts), self.inner.clone());
        Connecting::Dialing { dialing, call: Some(call), inner, parts }
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
        Dialing { dialing: Dialing, call: Option<Box<Call>>, inner: S, parts: Rc<Parts> },
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
                Stage::Dialing { dialing, call, inner, parts } => {
                    let dialed: Result<Upstream, DialError> = ready!(dialing.as_mut().poll(cx));
                    // Only taken when this stage is left.
                    let Some(call) = call.take() else { return Poll::Pending };
                    match dialed {
                        Ok(upstream) => {
                            call.meta.endpoint().load.connected();
                            let now = clock::now();
                            let took = call.meta.ledger.connected(now);
                            call.meta.target().view.fastest_connect.note(now, took);
                            if call.meta.is_late(now) {
                                return Poll::Ready(Err(late(&call)));
                            }
                            inner.call(Connected { call, upstream })
                        }
                        Err(error) => {
                            parts.note(&call, &error);
                            return Poll::Ready(Err(failed(call, &error)));
                        }
                    }
                }
            };
            self.set(Self::There { going });
        }
    }
}

impl Parts {
    /// An endpoint that cannot be connected time and again may no longer be registered: discovery is
    /// asked to look again. Of one that is known to be registered no more, once is enough. One that
    /// refuses calls is there.
    fn note(&self, call: &Call, error: &DialError) {
        let load = &call.meta.endpoint().load;
        if !error.is_ours()
            && error.outcome() != AttemptOutcome::Refused
            && (load.doubt() || load.connect_failed(clock::now().into_std()))
        {
            self.directory.doubt(call.meta.target().view.name());
        }
    }
}

/// Connected too late: nothing is sent of a call that is over.
fn late(call: &Call) -> AttemptError {
    AttemptError {
        error: exceeded(&call.meta),
        outcome: AttemptOutcome::Cancelled,
        progress: Progress::MaybeProcessed(None),
    }
}

/// Nothing of the call was sent: it may be tried on another endpoint.
fn failed(call: Box<Call>, error: &DialError) -> AttemptError {
    let reason = if error.is_protocol() { Reason::UpstreamProtocol } else { Reason::ConnectFailed };
    let service = call.meta.target().view.name();
    let error_text = format!("service {service}: {error}");
    if error.is_ours() {
        // Other endpoints need a descriptor as well.
        call.meta.target().view.metrics.limited("open_files");
        return AttemptError {
            error: CallError::overloaded(error_text, None),
            outcome: error.outcome(),
            progress: Progress::MaybeProcessed(None),
        };
    }
    AttemptError {
        error: CallError::new(reason, error_text),
        outcome: error.outcome(),
        progress: Progress::Unprocessed(call),
    }
}
