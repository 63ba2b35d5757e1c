//! What is known of services, as JSON.

use serde_json::{Value, json};

use crate::{
    discovery::Directory,
    model::{Endpoint, Rejected, Service, State},
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

/// `GET /services/NAME`.
pub(super) fn service(service: &Service) -> Value {
    let snapshot = service.snapshot();
    let endpoint = |endpoint: &std::sync::Arc<Endpoint>| {
        let Endpoint { record, source, key, load } = &**endpoint;
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
            "in_flight": load.in_flight(),
            "picks": load.picks(),
        })
    };
    let rejected = |rejected: &Rejected| json!({"key": &*rejected.key, "reason": rejected.reason});
    json!({
        "name": service.name().as_str(),
        "revision": snapshot.revision,
        "endpoints": snapshot.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "rejected": snapshot.rejected.iter().map(rejected).collect::<Vec<_>>(),
    })
}

/// Why the sources keep the process from being ready.
pub(super) fn unsynced(directory: &Directory) -> Vec<String> {
    let unsynced = directory.sources().into_iter().filter(|source| !source.synced);
    let reason = |source: crate::discovery::SourceStatus| match source.problem {
        Some(problem) => format!("source {}: {problem}", source.name),
        None => format!("source {}: not read yet", source.name),
    };
    unsynced.map(reason).collect()
}
