//! A service as discovery and the workers share it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Instant,
};

use arc_swap::Guard;

use super::{Ejection, Endpoint, LastSeconds, Newest, ServiceName, Snapshot};

/// One service that some source knows: its name and the pointer to its newest [`Snapshot`].
///
/// Discovery stores snapshots, workers look with each call whether there is another: one load, no lock.
pub struct Service {
    name: ServiceName,
    snapshot: Newest<Snapshot>,
    /// Calls that the policy lets be tried again although an endpoint may have worked on them,
    pub retriable: LastSeconds,
    /// and how often that was done.
    pub retries: LastSeconds,
    calls: AtomicU64,
    changes: AtomicU64,
    retired: AtomicBool,
}

impl Service {
    /// A service with its first snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            name: snapshot.service.clone(),
            snapshot: Newest::new(snapshot),
            retriable: LastSeconds::default(),
            retries: LastSeconds::default(),
            calls: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// The service's name.
    pub const fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Replaces the snapshot; the next pick uses it. Only discovery calls this.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.replace(snapshot);
    }

    /// Differs from what it was as soon as the snapshot does; see [`Newest::version`].
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Leaves an endpoint out until it is decided what becomes of it. This and what follows acts on the
    /// next pick of each worker.
    pub fn accuse(&self, endpoint: &Endpoint) {
        self.has_changed(endpoint.load.wellness().accuse());
    }

    /// It is decided.
    pub fn acquit(&self, endpoint: &Endpoint) {
        self.has_changed(endpoint.load.wellness().acquit());
    }

    /// Leaves an endpoint out, or goes on to.
    pub fn eject(&self, endpoint: &Endpoint, ejection: Ejection) {
        endpoint.load.wellness().eject(ejection);
        self.has_changed(true);
    }

    /// Lets one call try an ejected endpoint. [`Trial::take`](super::Trial::take) is that call's.
    pub fn offer_trial(&self, endpoint: &Endpoint) {
        self.has_changed(endpoint.load.wellness().offer_trial());
    }

    /// Takes an ejected endpoint back, as new.
    pub fn readmit(&self, endpoint: &Endpoint, now: Instant) {
        self.has_changed(endpoint.load.readmit(now));
    }

    /// Says that an endpoint is not well, and why not; none: that it is, as new where it was not.
    pub fn set_unhealthy(&self, endpoint: &Endpoint, why: Option<String>, now: Instant) {
        self.has_changed(endpoint.load.set_unhealthy(why, now));
    }

    fn has_changed(&self, changed: bool) {
        if changed {
            self.changes.fetch_add(1, Release);
        }
    }

    /// How often something has changed of how endpoints are.
    pub fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    /// Counts a call, so that discovery can tell an idle service.
    pub fn touch(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// Calls counted so far. A count that stands still for ten minutes means idle.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Whether discovery has dropped it: a worker that still holds it asks discovery again.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Says that discovery no longer keeps the snapshot up to date.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
