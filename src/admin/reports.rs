//! What is known of services, as JSON.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    discovery::{Directory, SourceStatus},
    model::{Endpoint, Rejected, Service, Snapshot, State},
};

/// `GET /services`.
pub(super) fn services(directory: &Directory) -> Value {
    let service = |service: &std::sync::Arc<Service>| {
        let snapshot = service.snapshot();
        let ready = snapshot.endpoints.iter().filter(|e| e.state() == State::Ready).count();
        let mut sources: Vec<&str> = snapshot.endpoints.iter().map(|e| &*e.source).collect();
        sources.sort_unstable();
        sources.dedup();
        json!({
            "name": service.name().as_str(),
            "endpoints": snapshot.endpoints.len(),
            "ready": ready,
            "sources": sources,
        })
    };
    json!({"services": directory.services().iter().map(service).collect::<Vec<_>>()})
}

/// How long ago it was last proved that all of a service is current, in seconds: by the source that is
/// behind the furthest. None where no source tells, or there is nothing to tell of.
fn age(sources: &[SourceStatus], snapshot: &Snapshot) -> Option<f64> {
    let is_of_it = |source: &&SourceStatus| {
        snapshot.endpoints.iter().any(|endpoint| endpoint.source == source.name)
    };
    let ages = sources.iter().filter(is_of_it).filter_map(|source| source.age);
    ages.max().map(|age| age.as_millis() as f64 / 1e3)
}

/// `GET /services/NAME`.
pub(super) fn service(directory: &Directory, service: &Service) -> Value {
    let snapshot = service.snapshot();
    let now = Instant::now().into_std();
    let endpoint = |endpoint: &std::sync::Arc<Endpoint>| {
        let Endpoint { record, source, key, load, .. } = &**endpoint;
        json!({
            "address": record.address.as_str(),
            "id": record.id,
            "weight": record.weight,
            "version": record.version,
            "zone": record.zone,
            "metadata": record.metadata,
            "source": &**source,
            "format": record.format,
            "key": &**key,
            "state": endpoint.state().as_str(),
            "reason": endpoint.ailment(now),
            "in_flight": load.in_flight(),
            "picks": load.picks(),
        })
    };
    json!({
        "name": service.name().as_str(),
        "revision": snapshot.revision,
        "age_seconds": age(&directory.sources(), &snapshot),
        "endpoints": snapshot.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "rejected": snapshot.rejected.iter().map(self::rejected).collect::<Vec<_>>(),
    })
}

/// A record that cannot be used, and why.
pub(super) fn rejected(rejected: &Rejected) -> Value {
    json!({"key": &*rejected.key, "reason": rejected.reason})
}

/// Why the sources keep the process from being ready.
pub(super) fn unsynced(directory: &Directory) -> Vec<String> {
    let unsynced = directory.sources().into_iter().filter(|source| !source.is_loaded());
    let reason = |source: SourceStatus| match source.problem {
        Some(problem) => format!("source {}: {problem}", source.name),
        None => format!("source {}: not read yet", source.name),
    };
    unsynced.map(reason).collect()
}
