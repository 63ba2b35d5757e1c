//! Where an attempt gets its connection.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;

use super::{
    dial::{DialError, Dialed, Ending, Wire, dial},
    pool::{Lease, Pool},
    warm::Warm,
};
use crate::{
    config::{Connection, Policy},
    metrics::{OpenConnection, ServiceMetrics},
    model::Endpoint,
};

/// All connections of one worker.
#[derive(Debug, Default)]
pub struct Connector {
    pool: Rc<Pool>,
    warm: Rc<Warm>,
}

/// A connection that is on its way. Dropping it gives the attempt up.
pub type Dialing = Pin<Box<dyn Future<Output = Result<Upstream, DialError>>>>;

/// A connection on which one call may be sent.
#[derive(Debug)]
pub struct Upstream {
    /// Opens the call's stream.
    pub send: SendRequest<Bytes>,
    kept: Kept,
}

/// What keeps the connection going.
#[derive(Debug)]
enum Kept {
    /// The call does: the connection is its own and ends with it.
    Own { wire: Option<Box<Wire>>, _open: OpenConnection },
    /// A task of the pool does; the call holds a place.
    Shared(Lease),
}

impl Connector {
    /// A connection that is there already, without waiting.
    pub fn ready(&self, endpoint: &Arc<Endpoint>, policy: &Policy) -> Option<Upstream> {
        match policy.connection {
            Connection::Fresh => None,
            Connection::Warm => self.warm.take(endpoint).map(Upstream::own),
            Connection::Pooled => self.pool.take(endpoint).map(Upstream::shared),
        }
    }

    /// A new connection, or a place on one that others wait for too, within `limit`.
    pub fn dial(
        &self,
        endpoint: &Arc<Endpoint>,
        policy: &Policy,
        limit: Duration,
        metrics: &Rc<ServiceMetrics>,
    ) -> Dialing {
        let (endpoint, metrics, ready) = (Arc::clone(endpoint), Rc::clone(metrics), policy.ready);
        if policy.connection == Connection::Pooled {
            let pool = Rc::clone(&self.pool);
            return Box::pin(async move {
                pool.wait(&endpoint, ready, limit, &metrics).await.map(Upstream::shared)
            });
        }
        Box::pin(async move {
            dial(&endpoint, ready, Ending::WithCall, limit, &metrics).await.map(Upstream::own)
        })
    }

    /// Says that a call on `endpoint` begins, so that connections can be made ahead for the next.
    pub fn prepare(&self, endpoint: &Arc<Endpoint>, policy: &Policy, metrics: &Rc<ServiceMetrics>) {
        if policy.connection == Connection::Warm {
            self.warm.prepare(endpoint, policy, metrics);
        }
    }
}

impl Upstream {
    fn own(dialed: Dialed) -> Self {
        let Dialed { send, wire, open } = dialed;
        Self { send, kept: Kept::Own { wire: Some(wire), _open: open } }
    }

    fn shared((send, lease): (SendRequest<Bytes>, Lease)) -> Self {
        Self { send, kept: Kept::Shared(lease) }
    }

    /// Moves bytes, where the call keeps the connection going. Call it whenever the call is polled;
    /// what goes wrong shows on the call's stream.
    pub fn poll_wire(&mut self, cx: &mut Context<'_>) {
        if let Kept::Own { wire: own, .. } = &mut self.kept
            && let Some(wire) = own
            && Pin::new(&mut **wire).poll(cx).is_ready()
        {
            // Dropping it is what tells the stream: after a write that failed, h2 does not.
            *own = None;
        }
    }

    /// Whether the call itself keeps the connection going.
    pub const fn is_own(&self) -> bool {
        matches!(self.kept, Kept::Own { .. })
    }

    /// Says that the endpoint kept silent until the call was given up: a shared connection is then
    /// probed, so that a dead one is not handed out for ever.
    pub fn suspect(&self) {
        if let Kept::Shared(lease) = &self.kept {
            lease.suspect();
        }
    }
}
