//! A connection that one call has for itself, fresh or made ahead.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::Request;

use super::{
    dial::{DialError, Ending, Manner, connected, watched},
    stream::{Awaited, Link, Outgoing, OwnStream, StreamError},
    vigil::Vigil,
};
use crate::{
    config::Ready,
    metrics::{OpenConnection, ServiceMetrics},
    model::Endpoint,
    single::{self, Connection},
    tls::Stream,
};

/// One that counts as connected, and has no call yet.
#[derive(Debug)]
pub(super) struct Unused {
    wire: Connection<Stream>,
    open: OpenConnection,
}

/// One that has its call, which drives it.
#[derive(Debug)]
pub(super) struct Own {
    wire: Link,
    vigil: Vigil,
    _open: OpenConnection,
}

impl Unused {
    /// Connects to `endpoint`.
    pub(super) async fn dial(
        endpoint: &Endpoint,
        manner: &Manner,
        metrics: &ServiceMetrics,
    ) -> Result<Self, DialError> {
        let speak = async |stream: Stream| {
            let mut wire = Connection::new(stream);
            if manner.ready == Ready::Settings {
                let ready = poll_fn(|cx| wire.poll_ready(cx)).await;
                ready.map_err(|error| failed(error, endpoint))?;
            }
            Ok(wire)
        };
        let (wire, open) = connected(endpoint, manner, Ending::WithCall, metrics, speak).await?;
        Ok(Self { wire, open })
    }

    /// Waits until it is of no use any more. What the endpoint asks is answered meanwhile.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.let_go();
        self.wire.poll_ended(cx)
    }

    /// Whether it still is of use: what the endpoint said last (GOAWAY, a close) may not have been read yet.
    pub(super) fn is_good(&mut self) -> bool {
        self.poll_ended(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

impl Own {
    /// For a call that begins now.
    pub(super) fn new(unused: Unused, host_timeout: Duration) -> Self {
        let Unused { wire, open } = unused;
        Self { wire: Rc::new(RefCell::new(wire)), vigil: Vigil::new(host_timeout), _open: open }
    }

    /// Opens the stream.
    pub(super) fn send_request(
        &self,
        request: &Request<()>,
        ends: bool,
    ) -> Result<(Awaited, Outgoing), StreamError> {
        self.wire.borrow_mut().send_request(request, ends)?;
        let stream = || OwnStream(Rc::clone(&self.wire));
        Ok((Awaited::Own(stream()), Outgoing::Own(stream())))
    }

    /// Moves bytes, of those that come at most about `most`. Whether it stopped there.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, most: Option<usize>) -> bool {
        let mut wire = self.wire.borrow_mut();
        if let Some(silence) = self.vigil.poll(cx) {
            watched(wire.io(), silence);
        }
        wire.drive(cx, most)
    }

    /// Writes what has been said since it was driven.
    pub(super) fn flush(&self, cx: &mut Context<'_>) {
        self.wire.borrow_mut().flush(cx);
    }
}

fn failed(error: single::Error, endpoint: &Endpoint) -> DialError {
    let address = endpoint.record.address.to_string();
    match error {
        single::Error::Io(source) => DialError::Io { address, source },
        single::Error::Closed => DialError::Closed { address },
        single::Error::GoAway(_) => DialError::GoAway { address },
        other => DialError::Protocol { address, reason: other.to_string() },
    }
}
