//! `GET /why`: where a call would go, decided by the same code that decides it for calls.

use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{
    Admin,
    routes::{Query, error, json_of},
};
use crate::{
    balance::{Explanation, Step, explain, explain_pin},
    discovery::ResolveError,
    model::{Reason, Selectors, Service, ServiceName},
    route::{Asked, route},
};

/// Answers for the call that the query describes.
pub(super) async fn answer(admin: &Admin, query: &Query) -> Response<Full<Bytes>> {
    let (Some(authority), service) =
        (query.get("authority").or_else(|| query.get("service")), query.get("service"))
    else {
        return error(StatusCode::BAD_REQUEST, "give authority=, as a call would carry it");
    };
    let filter = match query.get("filter").map(str::parse::<Selectors>).transpose() {
        Ok(filter) => filter,
        Err(wrong) => return verdict(authority, "", Reason::BadFilter, &wrong.to_string(), &[]),
    };
    let live = Arc::clone(&admin.live.load());
    let asked = Asked { authority, path: query.get("path").unwrap_or("/"), service };
    let routed = match route(&live, asked) {
        Ok(routed) => routed,
        Err(wrong) => return verdict(authority, "", Reason::BadAuthority, &wrong.to_string(), &[]),
    };
    let name = routed.service;
    let found = match resolve(admin, name).await {
        Ok(found) => found,
        Err((reason, message)) => return verdict(authority, name, reason, &message, &[]),
    };
    let snapshot = found.snapshot();
    let pin = query.get("node").or(routed.node);
    let policy = live.policy(found.name());
    let filter =
        filter.as_ref().or_else(|| routed.filter.map(|filter| &**filter)).unwrap_or(&policy.filter);
    let Explanation { steps, candidates } = match pin {
        Some(pin) => explain_pin(&snapshot, pin),
        None => explain(&snapshot, filter),
    };
    let Some(candidates) = candidates else {
        let known = !snapshot.endpoints.is_empty();
        let reason = if known { Reason::NoMatch } else { Reason::NoEndpoints };
        let message = if known { "nothing is left" } else { "the service has no endpoint" };
        return verdict(authority, name, reason, message, &steps);
    };
    let candidates: Vec<_> = candidates
        .shares()
        .map(|share| {
            let record = &share.endpoint.record;
            json!({"address": record.address.as_str(), "weight": record.weight, "share": share.share})
        })
        .collect();
    let route = routed
        .route
        .map(|route| json!({"authority": route.authority, "path_prefix": route.path_prefix}));
    let answer = json!({
        "authority": authority,
        "service": name,
        "verdict": "ok",
        "route": route,
        "balance": policy.balance.as_str(),
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "candidates": candidates,
    });
    json_of(StatusCode::OK, &answer)
}

/// A call that would fail is a good answer: the status is 200, the verdict is the error's name.
fn verdict(
    authority: &str,
    service: &str,
    reason: Reason,
    message: &str,
    steps: &[Step],
) -> Response<Full<Bytes>> {
    let answer = json!({
        "authority": authority,
        "service": service,
        "verdict": reason.as_str(),
        "message": message,
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "candidates": [],
    });
    json_of(StatusCode::OK, &answer)
}

fn step(step: &Step) -> Value {
    let dropped =
        |(address, reason): &(String, String)| json!({"address": address, "reason": reason});
    json!({
        "stage": step.stage,
        "kept": step.kept,
        "dropped": step.dropped.iter().map(dropped).collect::<Vec<_>>(),
    })
}

/// A service by name, asking the sources if it has never been called.
pub(super) async fn find(admin: &Admin, name: &str) -> Result<Arc<Service>, (StatusCode, String)> {
    resolve(admin, name).await.map_err(|(reason, message)| {
        let status = match reason {
            Reason::BadAuthority => StatusCode::BAD_REQUEST,
            Reason::NoEndpoints => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, message)
    })
}

async fn resolve(admin: &Admin, name: &str) -> Result<Arc<Service>, (Reason, String)> {
    let name: ServiceName =
        name.parse().map_err(|error| (Reason::BadAuthority, format!("{name:?}: {error}")))?;
    let limit = admin.live.load().policy(&name).connect_timeout;
    admin.directory.resolve(&name, limit).await.map_err(|error| {
        let reason = match error {
            ResolveError::Absent(_) => Reason::NoEndpoints,
            ResolveError::Unavailable { .. } => Reason::RegistryUnavailable,
        };
        (reason, error.to_string())
    })
}
