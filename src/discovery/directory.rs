//! All services that are known now, shared by the control thread and the workers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::model::{Service, ServiceName, Snapshot};

use super::{status::Status, trouble::Trouble};

/// The services known now. Cloning shares; every method may be called on any thread.
///
/// Workers keep the [`Service`]s they have met, so the lock is taken once a service and worker, not
/// once a call.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: RwLock<Known>,
    sources: RwLock<Vec<Arc<Status>>>,
    /// Where questions go; none while no discovery runs behind this directory.
    desk: OnceLock<mpsc::UnboundedSender<Ask>>,
}

#[derive(Debug, Default)]
struct Known {
    services: HashMap<ServiceName, Arc<Service>>,
    /// Whether some source must be asked for a service before all is known of it.
    lazy: bool,
    /// Services that every such source has been asked for.
    asked: HashSet<ServiceName>,
}

/// What somebody wants of the desk.
#[derive(Debug)]
pub(super) enum Ask {
    /// To know a service.
    Question(Question),
    /// To have the registrations of a service looked at again.
    Doubt(ServiceName),
}

/// What somebody wants to know of the sources.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: ServiceName,
    pub(super) reply: oneshot::Sender<Answer>,
}

pub(super) type Answer = Result<Arc<Service>, ResolveError>;

/// Why a service has no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Every source was asked, none knows the service.
    #[error("no source knows the service {0}")]
    Absent(ServiceName),
    /// Never seen, and a source cannot be asked now.
    #[error("service {service}: {reason}")]
    Unavailable {
        /// What was asked for.
        service: ServiceName,
        /// What was tried and failed, without secrets.
        reason: String,
    },
}

/// State of one source, for metrics and reports.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Whether it has been read once since start.
    pub synced: bool,
    /// Whether it is being read now: connected, or a file that is there.
    pub up: bool,
    /// How often each kind of trouble was met, in the order of [`Trouble::ALL`].
    pub troubles: [u64; Trouble::ALL.len()],
    /// Whether sets saved by an earlier process stand in for it, or did before it was read.
    pub restored: bool,
    /// Why it is not synced, or what failed last.
    pub problem: Option<String>,
    /// Newest registry revision applied; 0 where the source has none.
    pub revision: i64,
    /// Time since the source last proved that what is known of it is current, be it to the process
    /// that saved it; none where nothing is known.
    pub age: Option<Duration>,
    /// Times that sets could not be saved.
    pub unsaved: u64,
    /// Changes applied.
    pub events: u64,
    /// Lists read again after the first.
    pub resyncs: u64,
    /// Times that endpoints were held because most of a service vanished at once.
    pub brakes: u64,
    /// Records that cannot be used now.
    pub rejected: u64,
}

impl SourceStatus {
    /// Whether calls can be served: nothing is missing but what may have changed.
    pub const fn is_loaded(&self) -> bool {
        self.synced || self.restored
    }
}

impl Directory {
    /// The service, if every source has been asked for it and one knows it. Never waits.
    pub fn get(&self, name: &ServiceName) -> Option<Arc<Service>> {
        let known = self.known();
        let service = known.services.get(name)?;
        (!known.lazy || known.asked.contains(name)).then(|| Arc::clone(service))
    }

    /// The service, asking the sources about one never met before. Concurrent callers share one
    /// question. A source that does not answer within `limit` is not waited for when another one
    /// knows the service. Needs a tokio runtime with a timer.
    ///
    /// # Errors
    /// [`ResolveError`] when no source knows it, or none can be asked within `limit`.
    pub async fn resolve(
        &self,
        name: &ServiceName,
        limit: Duration,
    ) -> Result<Arc<Service>, ResolveError> {
        if let Some(service) = self.get(name) {
            return Ok(service);
        }
        let Some(desk) = self.shared.desk.get() else {
            return Err(ResolveError::Absent(name.clone()));
        };
        let unavailable = |reason| Err(ResolveError::Unavailable { service: name.clone(), reason });
        let (reply, answer) = oneshot::channel();
        // Where nobody reads it, the reply is dropped with the question.
        let _ = desk.send(Ask::Question(Question { name: name.clone(), reply }));
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => unavailable("discovery has stopped".to_owned()),
            Err(_) => match self.find(name) {
                Some(service) => Ok(service),
                None => unavailable(format!("no answer within {limit:?}{}", self.problems())),
            },
        }
    }

    /// Says that an endpoint of the service cannot be connected, time and again if it is registered:
    /// the sources will be asked whether it still is, though not as often as this may be called, and
    /// suspects are dialled again. Never waits.
    pub fn doubt(&self, name: &ServiceName) {
        if let Some(desk) = self.shared.desk.get() {
            let _ = desk.send(Ask::Doubt(name.clone()));
        }
    }

    /// All services known now, in the order of their names.
    pub fn services(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> = self.known().services.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// State of every source, in the order of the configuration.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let sources = self.shared.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.iter().map(|status| status.read()).collect()
    }

    /// Publishes a snapshot: replaces the service's, or makes the service known.
    pub fn publish(&self, snapshot: Snapshot) {
        let name = snapshot.service.clone();
        // Most of the time it is known, and readers need not be kept out.
        match self.find(&name) {
            Some(service) => service.publish(Arc::new(snapshot)),
            None => {
                let service = Arc::new(Service::new(snapshot));
                self.known_mut().services.insert(name, service);
            }
        }
    }

    /// The service, if any source knows it, asked or not.
    pub(super) fn find(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.known().services.get(name).cloned()
    }

    /// Forgets a service and tells its holders so. It must be asked for again.
    pub(super) fn remove(&self, name: &ServiceName) {
        let mut known = self.known_mut();
        known.asked.remove(name);
        if let Some(service) = known.services.remove(name) {
            service.retire();
        }
    }

    /// Says that every lazy source has been asked for the service.
    pub(super) fn mark_asked(&self, name: &ServiceName) {
        // Most questions are about services asked for before; they must not stop the readers.
        if !self.is_asked(name) {
            self.known_mut().asked.insert(name.clone());
        }
    }

    pub(super) fn unmark_asked(&self, name: &ServiceName) {
        self.known_mut().asked.remove(name);
    }

    pub(super) fn is_asked(&self, name: &ServiceName) -> bool {
        self.known().asked.contains(name)
    }

    pub(super) fn asked(&self) -> Vec<ServiceName> {
        self.known().asked.iter().cloned().collect()
    }

    /// Takes the sources of a new configuration. Services in use count as asked for: their callers
    /// hold them and will not ask again.
    pub(super) fn set_sources(&self, sources: Vec<Arc<Status>>, lazy: bool) {
        *self.shared.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        let known = &mut *self.known_mut();
        if lazy && !known.lazy {
            let used = known.services.values().filter(|service| service.calls() > 0);
            known.asked.extend(used.map(|service| service.name().clone()));
        }
        known.lazy = lazy;
    }

    /// Connects the directory to what answers questions; only once.
    pub(super) fn connect(&self, desk: mpsc::UnboundedSender<Ask>) {
        let connected = self.shared.desk.set(desk);
        debug_assert!(connected.is_ok(), "a directory has one desk");
    }

    /// What is wrong with the sources, as the end of a sentence.
    fn problems(&self) -> String {
        let sources = self.sources();
        let problems = sources.iter().filter_map(|source| {
            source.problem.as_ref().map(|problem| format!("; source {}: {problem}", source.name))
        });
        problems.collect()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.shared.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
