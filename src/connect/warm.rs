//! Connections made ahead of the calls that will use them, each for one call.
//!
//! A call then costs no connect, and still has its connection for itself. How many are kept follows
//! the recent rate of calls; nothing is dialled for an endpoint that nobody calls. While another one is
//! ready the call goes first, and what replaces its connection is dialled a moment later.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, spawn_local},
    time::{Instant, timeout},
};

use super::{
    dial::Manner,
    own::Unused,
    peer::{Key, Peer},
};
use crate::{
    alarm::Alarm,
    metrics::ServiceMetrics,
    model::Endpoint,
    panics::{Caught, Task},
    tls::Terms,
};

/// How long a connection waits for its call.
const IDLE: Duration = Duration::from_secs(10);
/// Most connections kept ahead for one endpoint, on one worker.
const MOST: usize = 64;
/// How long after a call the connection that replaces its own is begun, while there is another; rounded up
/// to the clock of alarms, a millisecond. Begun together the two meet on all of their way, and the call
/// waits: over 1 ms, at 400 calls a second, 0.27 ms at the median.
const AFTER_CALL: Duration = Duration::from_micros(100);
/// Memory of the rate of calls and of the time that connecting takes.
const DECAY: Duration = Duration::from_secs(2);

/// Connections made ahead on one worker.
#[derive(Debug, Default)]
pub(super) struct Warm {
    stocks: RefCell<HashMap<Key, Rc<Stock>, foldhash::fast::RandomState>>,
}

/// Connections made ahead for one endpoint.
#[derive(Debug)]
struct Stock {
    peer: Peer,
    ready: RefCell<Vec<Rc<Slot>>>,
    dialing: Cell<usize>,
    /// Calls a second, decaying.
    rate: Cell<f64>,
    /// Seconds that connecting takes, decaying.
    connect_seconds: Cell<f64>,
    last_call: Cell<Instant>,
}

/// One connection that waits, and the task that keeps it going meanwhile.
#[derive(Debug)]
struct Slot {
    unused: RefCell<Option<Unused>>,
    keeper: RefCell<Option<AbortHandle>>,
}

impl Warm {
    /// A connection that is ready now, the newest first.
    pub(super) fn take(&self, endpoint: &Endpoint, terms: Option<&Arc<Terms>>) -> Option<Unused> {
        let stocks = self.stocks.borrow();
        let stock = stocks.get(&Key::of(endpoint, terms))?;
        loop {
            let slot = stock.ready.borrow_mut().pop()?;
            if let Some(unused) = slot.take() {
                return Some(unused);
            }
        }
    }

    /// Counts a call and connects ahead for those that will follow it.
    pub(super) fn prepare(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        manner: &Manner,
        metrics: &Rc<ServiceMetrics>,
    ) {
        let stock = {
            let (mut stocks, terms) = (self.stocks.borrow_mut(), manner.terms());
            let entry = stocks.entry(Key::of(endpoint, terms));
            Rc::clone(entry.or_insert_with(|| Rc::new(Stock::new(Peer::new(endpoint, terms)))))
        };
        stock.count_call();
        let (wanted, ready) = (stock.wanted(), stock.ready.borrow().len());
        let wait = (ready > 0).then_some(AFTER_CALL);
        while ready + stock.dialing.get() < wanted {
            self.add(&stock, endpoint, manner, metrics, wait);
        }
    }

    fn add(
        self: &Rc<Self>,
        stock: &Rc<Stock>,
        endpoint: &Arc<Endpoint>,
        manner: &Manner,
        metrics: &Rc<ServiceMetrics>,
        wait: Option<Duration>,
    ) {
        stock.dialing.update(|dialing| dialing + 1);
        let (warm, stock) = (Rc::downgrade(self), Rc::clone(stock));
        let (endpoint, metrics) = (Arc::clone(endpoint), Rc::clone(metrics));
        let manner = manner.clone();
        spawn_local(async move {
            if let Some(wait) = wait {
                Alarm::after(wait).await;
            }
            let began = Instant::now();
            let dialing = Unused::dial(&endpoint, &manner, &metrics);
            let dialed = Caught::new(Task::Upstream, dialing).await;
            stock.dialing.update(|dialing| dialing - 1);
            // A failure is the next call's to find: it dials for itself and says why it could not.
            let Ok(Ok(dialed)) = dialed else { return };
            stock.connected_in(began.elapsed());
            let slot = stock.add(dialed);
            let keeper = spawn_local(keep(warm, stock, Rc::clone(&slot)));
            *slot.keeper.borrow_mut() = Some(keeper.abort_handle());
        });
    }

    fn forget_unused(&self) {
        self.stocks.borrow_mut().retain(|_, stock| {
            stock.dialing.get() > 0
                || !stock.ready.borrow().is_empty()
                || (!stock.peer.is_gone() && stock.last_call.get().elapsed() < IDLE)
        });
    }
}

impl Stock {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            ready: RefCell::default(),
            dialing: Cell::new(0),
            rate: Cell::new(0.0),
            connect_seconds: Cell::new(0.001),
            last_call: Cell::new(Instant::now()),
        }
    }

    fn count_call(&self) {
        let now = Instant::now();
        let since = now.duration_since(self.last_call.replace(now));
        let kept = (-since.as_secs_f64() / DECAY.as_secs_f64()).exp();
        self.rate.update(|rate| rate * kept + 1.0 / DECAY.as_secs_f64());
    }

    fn connected_in(&self, took: Duration) {
        self.connect_seconds.update(|seconds| seconds * 0.8 + took.as_secs_f64() * 0.2);
    }

    /// Twice as many as calls arrive while one connects, and one for the next.
    fn wanted(&self) -> usize {
        let arriving = self.rate.get() * self.connect_seconds.get();
        ((2.0 * arriving).ceil() as usize + 1).min(MOST)
    }

    fn add(&self, unused: Unused) -> Rc<Slot> {
        let slot = Rc::new(Slot { unused: RefCell::new(Some(unused)), keeper: RefCell::default() });
        self.ready.borrow_mut().push(Rc::clone(&slot));
        slot
    }
}

/// Looks after one connection until the peer closes it or nobody came for it. Aborted when it is
/// taken.
async fn keep(warm: Weak<Warm>, stock: Rc<Stock>, slot: Rc<Slot>) {
    let _ = Caught::new(Task::Upstream, timeout(IDLE, slot.until_closed())).await;
    stock.ready.borrow_mut().retain(|other| !Rc::ptr_eq(other, &slot));
    slot.unused.borrow_mut().take();
    if let Some(warm) = warm.upgrade() {
        warm.forget_unused();
    }
}

impl Slot {
    /// The connection, if it is still good, and the end of its keeper.
    fn take(&self) -> Option<Unused> {
        let mut unused = self.unused.borrow_mut().take()?;
        if let Some(keeper) = self.keeper.borrow_mut().take() {
            keeper.abort();
        }
        unused.is_good().then_some(unused)
    }

    /// Keeps the connection going (PING is answered, SETTINGS are applied) until it ends.
    async fn until_closed(&self) {
        poll_fn(|cx| match &mut *self.unused.borrow_mut() {
            Some(unused) => unused.poll_ended(cx),
            None => Poll::Ready(()),
        })
        .await;
    }
}
