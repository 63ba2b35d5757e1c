//! Shared connections: many calls on one, as few connections as the peer's
//! MAX_CONCURRENT_STREAMS allows.
//!
//! Each endpoint has its own connections, on each worker its own. A connection ends when the peer
//! says GOAWAY, when it is idle for [`IDLE`], or after its last call when the endpoint has left.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep, timeout},
};

use super::{
    dial::{DialError, Dialed, Manner, Wire, dial},
    peer::{Key, Peer},
    wires::{Portion, Wires},
};
use crate::{
    clock,
    metrics::{OpenConnection, ServiceMetrics},
    model::Endpoint,
    panics::{Caught, Panicked, Task, again},
    tls::Terms,
};

/// How long a connection without calls is kept.
const IDLE: Duration = Duration::from_secs(300);
/// How often connections are looked over while there are any.
const SWEEP: Duration = Duration::from_secs(1);
/// Streams expected of an endpoint's first connection (RFC 9113 section 6.5.2 advises peers to allow
/// no fewer).
const EXPECTED_STREAMS: usize = 100;
/// Time between PINGs on a quiet connection. gRPC servers answer more than one in five minutes with
/// GOAWAY `too_many_pings`.
const KEEPALIVE: Duration = Duration::from_secs(301);
/// How long an answer to a PING may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Shared connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    endpoints: RefCell<HashMap<Key, Rc<Connections>, foldhash::fast::RandomState>>,
    sweeping: Cell<bool>,
    wires: Rc<Wires>,
}

/// Connections to one endpoint.
#[derive(Debug)]
struct Connections {
    peer: Peer,
    open: RefCell<Vec<Rc<Shared>>>,
    dialing: Cell<usize>,
    waiting: Cell<usize>,
    /// Streams that the newest connection allows, which is what the next one is expected to.
    streams: Cell<usize>,
    /// Wakes one waiter for each place that comes free.
    place: Notify,
    /// The newest failure to connect, and how many there were.
    failure: RefCell<Option<DialError>>,
    failures: Cell<u64>,
}

/// One connection.
#[derive(Debug)]
struct Shared {
    /// None once it takes no more calls; h2 then closes it after the last.
    send: RefCell<Option<SendRequest<Bytes>>>,
    /// Most calls that the peer takes at a time.
    most: Cell<usize>,
    in_use: Cell<usize>,
    /// Whether it has had a call.
    is_used: Cell<bool>,
    idle_since: Cell<Instant>,
    suspected: Notify,
}

/// A stream: what comes, and what goes.
pub(super) type Opened = (ResponseFuture, SendStream<Bytes>);

/// A place on a shared connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Rc<Shared>,
    /// A sender of its own, where that of the connection is not free.
    send: Option<SendRequest<Bytes>>,
    connections: Weak<Connections>,
    is_first: bool,
}

impl Pool {
    /// No connection yet; those that come will be among `wires`.
    pub(super) fn new(wires: Rc<Wires>) -> Self {
        Self { wires, ..Self::default() }
    }

    /// A place on a connection that is there and has room.
    pub(super) fn take(&self, endpoint: &Endpoint, terms: Option<&Arc<Terms>>) -> Option<Lease> {
        let endpoints = self.endpoints.borrow();
        endpoints.get(&Key::of(endpoint, terms))?.take()
    }

    /// A place, on a new connection if need be, within the limit of `manner`.
    pub(super) async fn wait(
        self: Rc<Self>,
        endpoint: &Arc<Endpoint>,
        manner: &Manner,
        metrics: &Rc<ServiceMetrics>,
    ) -> Result<Lease, DialError> {
        let limit = manner.limit;
        let connections = self.connections(endpoint, manner.terms());
        let failures = connections.failures.get();
        let _waiting = connections.wait();
        let place = async {
            loop {
                let notified = connections.place.notified();
                if let Some(place) = connections.take() {
                    return Ok(place);
                }
                if connections.failures.get() != failures
                    && let Some(failure) = &*connections.failure.borrow()
                {
                    return Err(failure.clone());
                }
                if connections.waiting.get() > connections.expected_places() {
                    self.open(&connections, endpoint, manner, metrics);
                }
                notified.await;
            }
        };
        let address = || endpoint.record.address.to_string();
        timeout(limit, place)
            .await
            .unwrap_or_else(|_| Err(DialError::Timeout { address: address(), limit }))
    }

    fn connections(&self, endpoint: &Endpoint, terms: Option<&Arc<Terms>>) -> Rc<Connections> {
        let mut endpoints = self.endpoints.borrow_mut();
        let connections = endpoints.entry(Key::of(endpoint, terms));
        let new = || Rc::new(Connections::new(Peer::new(endpoint, terms)));
        Rc::clone(connections.or_insert_with(new))
    }

    /// Dials in a task of its own: the call that asked first may be gone before the others are.
    fn open(
        self: &Rc<Self>,
        connections: &Rc<Connections>,
        endpoint: &Arc<Endpoint>,
        manner: &Manner,
        metrics: &Rc<ServiceMetrics>,
    ) {
        connections.dialing.update(|dialing| dialing + 1);
        let (connections, endpoint) = (Rc::clone(connections), Arc::clone(endpoint));
        let (metrics, manner) = (Rc::clone(metrics), manner.clone());
        let portion = Portion::new(&self.wires);
        spawn_local(async move {
            let dialing = dial(&endpoint, &manner, &metrics, portion);
            let dialed = Caught::new(Task::Upstream, dialing).await;
            connections.dialing.update(|dialing| dialing - 1);
            match dialed.unwrap_or_else(|Panicked| Err(DialError::panicked(&endpoint))) {
                Ok(dialed) => connections.add(dialed),
                Err(failure) => connections.fail(failure),
            }
        });
        if !self.sweeping.replace(true) {
            let pool = Rc::downgrade(self);
            spawn_local(again(Task::Upstream, move || sweep(Weak::clone(&pool))));
        }
    }
}

impl Connections {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            open: RefCell::default(),
            dialing: Cell::new(0),
            waiting: Cell::new(0),
            streams: Cell::new(EXPECTED_STREAMS),
            place: Notify::new(),
            failure: RefCell::default(),
            failures: Cell::new(0),
        }
    }

    /// Counts a waiter for as long as the guard lives.
    fn wait(self: &Rc<Self>) -> impl Drop + use<> {
        struct Waiting(Rc<Connections>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.waiting.update(|waiting| waiting - 1);
            }
        }
        self.waiting.update(|waiting| waiting + 1);
        Waiting(Rc::clone(self))
    }

    fn take(self: &Rc<Self>) -> Option<Lease> {
        // The first connection with room: the last ones then fall idle and are closed.
        self.open.borrow().iter().find_map(|shared| {
            let send = shared.take()?;
            let is_first = !shared.is_used.replace(true);
            let shared = Rc::clone(shared);
            Some(Lease { shared, send, connections: Rc::downgrade(self), is_first })
        })
    }

    fn add(self: &Rc<Self>, dialed: Dialed) {
        let Dialed { send, wire, open, .. } = dialed;
        let most = send.current_max_send_streams();
        self.streams.set(most.max(1));
        let shared = Rc::new(Shared {
            send: RefCell::new(Some(send)),
            most: Cell::new(most),
            in_use: Cell::new(0),
            is_used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            suspected: Notify::new(),
        });
        self.open.borrow_mut().push(Rc::clone(&shared));
        let connections = Rc::downgrade(self);
        spawn_local(async move {
            let _ = Caught::new(Task::Upstream, drive(wire, open, &shared)).await;
            if let Some(connections) = connections.upgrade() {
                connections.remove(&shared);
            }
        });
        // All of them: whoever finds no place on it dials another.
        self.place.notify_waiters();
    }

    /// Places that connections on their way will bring.
    fn expected_places(&self) -> usize {
        self.dialing.get().saturating_mul(self.streams.get())
    }

    fn fail(&self, failure: DialError) {
        *self.failure.borrow_mut() = Some(failure);
        self.failures.update(|failures| failures + 1);
        self.place.notify_waiters();
    }

    fn remove(&self, shared: &Rc<Shared>) {
        shared.close();
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, shared));
        // Those who waited for a place on it dial anew.
        self.place.notify_waiters();
    }

    /// Closes what is idle or no longer wanted; false when nothing is left to look after.
    fn sweep(&self) -> bool {
        self.open.borrow().iter().for_each(|shared| {
            let unused = shared.in_use.get() == 0;
            if self.peer.is_gone() || (unused && shared.idle_since.get().elapsed() >= IDLE) {
                shared.close();
            }
        });
        !self.open.borrow().is_empty() || self.dialing.get() > 0 || self.waiting.get() > 0
    }
}

impl Shared {
    /// Takes a place, if the connection takes another call now. With it comes a sender where a call before
    /// has not been able to open its stream: until then the connection's own sender takes no other.
    fn take(&self) -> Option<Option<SendRequest<Bytes>>> {
        let mut sender = self.send.borrow_mut();
        let send = sender.as_mut()?;
        if self.in_use.get() >= self.most.get() {
            return None;
        }
        // A connection that ends, or was told GOAWAY, says so here, before anything is sent.
        let ready = send.poll_ready(&mut Context::from_waker(Waker::noop()));
        let own = match ready {
            Poll::Ready(Ok(())) => None,
            Poll::Pending => Some(send.clone()),
            Poll::Ready(Err(_)) => {
                *sender = None;
                return None;
            }
        };
        self.in_use.update(|in_use| in_use + 1);
        Some(own)
    }

    /// Moves the connection on. What the peer allows changes here and nowhere else, and is asked for here:
    /// it costs a lock, and there are many calls for each turn of their connection.
    fn advance(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<()> {
        let going = Pin::new(wire).poll(cx).map(drop);
        if let Some(send) = &*self.send.borrow() {
            self.most.set(send.current_max_send_streams());
        }
        going
    }

    fn close(&self) {
        self.send.borrow_mut().take();
    }
}

impl Lease {
    /// Opens a stream.
    ///
    /// # Errors
    /// Those of h2. Nothing has been sent then.
    pub(super) fn send_request(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<Opened, h2::Error> {
        match (&mut self.send, self.shared.send.borrow_mut().as_mut()) {
            (Some(own), _) => own.send_request(request, ends),
            // To clone it would cost two locks a call.
            (None, Some(shared)) => shared.send_request(request, ends),
            (None, None) => Err(h2::Reason::REFUSED_STREAM.into()),
        }
    }

    /// Whether the connection has not been used before.
    pub(super) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Has the connection probed by a PING.
    pub(super) fn suspect(&self) {
        self.shared.suspected.notify_one();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.in_use.update(|in_use| in_use - 1);
        self.shared.idle_since.set(clock::now());
        if let Some(connections) = self.connections.upgrade()
            && connections.waiting.get() > 0
        {
            connections.place.notify_one();
        }
    }
}

/// Keeps one connection going until it ends.
async fn drive(mut wire: Box<Wire>, _open: OpenConnection, shared: &Shared) {
    let pings = wire.ping_pong();
    tokio::select! {
        biased;
        () = poll_fn(|cx| shared.advance(&mut wire, cx)) => {}
        () = until_silent(pings, shared) => {}
    }
}

/// Ends when the peer leaves a PING unanswered. PINGs are sent rarely, and when a call got no answer.
async fn until_silent(pings: Option<PingPong>, shared: &Shared) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::select! {
            () = shared.suspected.notified() => {}
            () = sleep(KEEPALIVE) => {}
        }
        if !matches!(timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
        // However many calls got no answer, the peer is asked six times a minute at most.
        sleep(PING_TIMEOUT).await;
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut endpoints = pool.endpoints.borrow_mut();
        endpoints.retain(|_, connections| connections.sweep());
        if endpoints.is_empty() {
            pool.sweeping.set(false);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, task::LocalSet, time};

    use super::*;
    use crate::{config::Ready, metrics::Metrics, model::Record};

    #[tokio::test]
    async fn a_connection_that_has_been_idle_for_five_minutes_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let endpoint = Arc::new(Endpoint {
            record: Record::new(address, "test").into(),
            source: "main".into(),
            key: "".into(),
            load: Arc::default(),
            networks: Arc::default(),
        });
        let pool = Rc::new(Pool::default());
        let metrics = Rc::new(Metrics::new().service("orders"));
        let tasks = LocalSet::new();
        let until_closed = tasks.spawn_local(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            while connection.accept().await.is_some() {}
        });
        let limit = Duration::from_secs(20);
        let manner = Manner { ready: Ready::Settings, limit, host_timeout: limit, tls: None };
        let used = async {
            let waiting = Rc::clone(&pool).wait(&endpoint, &manner, &metrics);
            drop(waiting.await.unwrap());
            time::pause();
            time::advance(IDLE - 2 * SWEEP).await;
            time::resume();
            // Real time, in which a connection that was closed too early would be seen to be.
            sleep(Duration::from_millis(100)).await;
            assert!(!until_closed.is_finished());
            assert!(pool.take(&endpoint, None).is_some(), "it is there for the next call");
            time::pause();
            time::advance(IDLE + SWEEP).await;
            time::resume();
            timeout(limit, until_closed).await.unwrap().unwrap();
            assert!(pool.take(&endpoint, None).is_none());
        };
        tasks.run_until(used).await;
    }
}
