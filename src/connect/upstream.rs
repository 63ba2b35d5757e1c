//! Where an attempt gets its connection.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task::Context, time::Duration};

use http::Request;

use super::{
    dial::{DialError, Manner, Secure},
    own::{Own, Unused},
    pool::{Lease, Pool},
    stream::{Awaited, Outgoing, StreamError},
    warm::Warm,
    wires::Wires,
};
use crate::{
    config::{Connection, Policy},
    metrics::ServiceMetrics,
    model::{Endpoint, ServiceName},
    tls::{Clients, Terms},
};

/// All connections of one worker.
#[derive(Debug)]
pub struct Connector {
    pool: Rc<Pool>,
    warm: Rc<Warm>,
    clients: Clients,
}

/// A connection that is on its way. Dropping it gives the attempt up.
pub type Dialing = Pin<Box<dyn Future<Output = Result<Upstream, DialError>>>>;

/// A connection on which one call may be sent.
#[derive(Debug)]
pub struct Upstream {
    kept: Kept,
}

/// What keeps the connection going.
#[derive(Debug)]
enum Kept {
    /// The call does: the connection is its own and ends with it.
    Own(Own),
    /// A task of the pool does; the call holds a place.
    Shared(Lease),
}

impl Connector {
    /// No connection yet; TLS by `clients`. Those that are shared will be among `wires`.
    pub fn new(clients: Clients, wires: Rc<Wires>) -> Self {
        Self { pool: Rc::new(Pool::new(wires)), warm: Rc::default(), clients }
    }

    /// A connection that is there already, without waiting.
    pub fn ready(&self, endpoint: &Arc<Endpoint>, policy: &Policy) -> Option<Upstream> {
        if policy.connection == Connection::Fresh {
            return None;
        }
        let terms = self.terms_now(endpoint, policy)?;
        match policy.connection {
            Connection::Fresh => None,
            Connection::Warm => {
                let unused = self.warm.take(endpoint, terms.as_ref())?;
                Some(Upstream::own(unused, policy.host_timeout))
            }
            Connection::Pooled => self.pool.take(endpoint, terms.as_ref()).map(Upstream::shared),
        }
    }

    /// The terms of connections to `endpoint` now, none of plaintext; or nothing, while they are not known.
    fn terms_now(&self, endpoint: &Endpoint, policy: &Policy) -> Option<Option<Arc<Terms>>> {
        match policy.tls.is_spoken(endpoint.record.tls) {
            false => Some(None),
            true => self.clients.now(&policy.tls).map(Some),
        }
    }

    /// A new connection, or a place on one that others wait for too, within `connect_timeout`.
    pub fn dial(
        &self,
        endpoint: &Arc<Endpoint>,
        service: &ServiceName,
        policy: &Arc<Policy>,
        metrics: &Rc<ServiceMetrics>,
    ) -> Dialing {
        let (endpoint, metrics) = (Arc::clone(endpoint), Rc::clone(metrics));
        let pool = (policy.connection == Connection::Pooled).then(|| Rc::clone(&self.pool));
        if policy.tls.is_spoken(endpoint.record.tls) {
            let (policy, service) = (Arc::clone(policy), service.clone());
            let clients = self.clients.clone();
            return Box::pin(async move {
                let manner = Manner::of(&policy, &endpoint, &service, &clients).await?;
                connect(pool, endpoint, manner, metrics).await
            });
        }
        Box::pin(connect(pool, endpoint, Manner::plain(policy), metrics))
    }

    /// Says that a call on `endpoint` begins, so that connections can be made ahead for the next.
    pub fn prepare(
        &self,
        endpoint: &Arc<Endpoint>,
        service: &ServiceName,
        policy: &Policy,
        metrics: &Rc<ServiceMetrics>,
    ) {
        if policy.connection == Connection::Warm
            && let Some(terms) = self.terms_now(endpoint, policy)
        {
            let tls = terms.map(|terms| Secure { terms, service: service.clone() });
            let manner = Manner { tls, ..Manner::plain(policy) };
            self.warm.prepare(endpoint, &manner, metrics);
        }
    }
}

async fn connect(
    pool: Option<Rc<Pool>>,
    endpoint: Arc<Endpoint>,
    manner: Manner,
    metrics: Rc<ServiceMetrics>,
) -> Result<Upstream, DialError> {
    match pool {
        Some(pool) => pool.wait(&endpoint, &manner, &metrics).await.map(Upstream::shared),
        None => {
            let unused = Unused::dial(&endpoint, &manner, &metrics).await?;
            Ok(Upstream::own(unused, manner.host_timeout))
        }
    }
}

impl Upstream {
    fn own(unused: Unused, host_timeout: Duration) -> Self {
        Self { kept: Kept::Own(Own::new(unused, host_timeout)) }
    }

    const fn shared(lease: Lease) -> Self {
        Self { kept: Kept::Shared(lease) }
    }

    /// Opens the call's stream, and sends its head.
    ///
    /// # Errors
    /// Nothing has been sent then.
    #[inline]
    pub fn send_request(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(Awaited, Outgoing), StreamError> {
        match &mut self.kept {
            Kept::Own(own) => own.send_request(&request, ends),
            Kept::Shared(lease) => {
                let (answer, send) = lease.send_request(request, ends)?;
                Ok((Awaited::Shared(answer), Outgoing::Shared(send)))
            }
        }
    }

    /// Moves bytes, where the call keeps the connection going; of those that come, at most about `most`. Call it
    /// whenever the call is polled; what goes wrong shows on the call's stream. Whether it stopped at `most`: there
    /// may be more then, of which nothing else will tell.
    #[inline]
    pub fn poll_wire(&mut self, cx: &mut Context<'_>, most: Option<usize>) -> bool {
        match &mut self.kept {
            Kept::Own(own) => own.drive(cx, most),
            Kept::Shared(_) => false,
        }
    }

    /// Writes what the call has said since [`Self::poll_wire`].
    #[inline]
    pub fn flush(&self, cx: &mut Context<'_>) {
        if let Kept::Own(own) = &self.kept {
            own.flush(cx);
        }
    }

    /// Whether other calls go on it, too.
    pub const fn is_shared(&self) -> bool {
        matches!(&self.kept, Kept::Shared(_))
    }

    /// Whether the call is the first of many on a connection: it tells the endpoint the names of
    /// headers that they all have.
    pub const fn is_first_of_many(&self) -> bool {
        matches!(&self.kept, Kept::Shared(lease) if lease.is_first())
    }

    /// Says that the endpoint kept silent until the call was given up: a shared connection is then
    /// probed, so that a dead one is not handed out for ever.
    pub fn suspect(&self) {
        if let Kept::Shared(lease) = &self.kept {
            lease.suspect();
        }
    }
}
