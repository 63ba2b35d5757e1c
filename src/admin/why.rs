//! `GET /why`: where a call would go, decided by the same code that decides it for calls.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Admin, reports,
    routes::{Query, error, json_of},
};
use crate::{
    balance::{Candidate, Explanation, Plan, Step, explain, explain_pin},
    config::{PathMatch, Policy, RouteMatch, ValueMatch},
    discovery::ResolveError,
    model::{Reason, Rejected, Selectors, Service, ServiceName, stable_hash},
    route::{Asked, Decision, Rule, Way, key},
};

/// What a query may have; `header` any number of times.
pub(super) const PARAMETERS: [&str; 8] =
    ["authority", "path", "service", "node", "filter", "hash_key", "source", "header"];

/// Answers for the call that the query describes.
pub(super) async fn answer(admin: &Admin, query: &Query) -> Response<Full<Bytes>> {
    let (Some(authority), service) =
        (query.get("authority").or_else(|| query.get("service")), query.get("service"))
    else {
        return error(StatusCode::BAD_REQUEST, "give authority=, as a call would carry it");
    };
    let mut report = Report { authority, service: "", route: None, rejected: Vec::new() };
    let filter = match query.get("filter").map(str::parse::<Selectors>).transpose() {
        Ok(filter) => filter,
        Err(wrong) => return report.failure(Reason::BadFilter, &wrong.to_string(), &[]),
    };
    let headers = match headers(query) {
        Ok(headers) => headers,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let live = Arc::clone(&admin.live.load());
    let path = query.get("path").unwrap_or("/");
    let hash_key = query.get("hash_key").map(|text| stable_hash(text.as_bytes()));
    let source = query.get("source").and_then(|source| source.parse().ok());
    let asked = Asked { authority, path, service, headers: &headers, hash_key, source };
    let routed = match live.routes.decide(asked) {
        Ok(Decision::Forward(routed)) => routed,
        Ok(Decision::Respond(rule, respond)) => {
            report.route = Some(route(rule, None));
            return report.failure(Reason::DirectResponse, &respond.message, &[]);
        }
        Err(wrong) => return report.failure(Reason::BadAuthority, &wrong.to_string(), &[]),
    };
    report.service = routed.service;
    report.route = routed.rule.map(|(rule, way)| route(rule, Some(way)));
    let found = match resolve(admin, routed.service).await {
        Ok(found) => found,
        Err((reason, message)) => return report.failure(reason, &message, &[]),
    };
    let snapshot = found.snapshot();
    report.rejected = snapshot.rejected.iter().map(reports::rejected).collect();
    let pin = query.get("node").or(routed.node);
    let policy = routed.rule.map_or_else(|| live.policy(found.name()), |(_, way)| &way.policy);
    let filter = filter.as_ref().unwrap_or(&policy.filter);
    let now = Instant::now().into_std();
    let Explanation { steps, candidates } = match pin {
        Some(pin) => explain_pin(&snapshot, pin),
        None => {
            let plan = Plan::new(policy, &live.node);
            let key = key(&policy.hash_on, asked.shown());
            explain(&snapshot, filter, &plan, &admin.tables, key, now)
        }
    };
    if candidates.is_empty() {
        let known = !snapshot.endpoints.is_empty();
        let reason = if known { Reason::NoMatch } else { Reason::NoEndpoints };
        let message = match (known, snapshot.rejected.first()) {
            (true, _) => "nothing is left".to_owned(),
            (false, None) => "the service has no endpoint".to_owned(),
            (false, Some(Rejected { key, reason })) => {
                format!("the service has no endpoint that can be used; {key}: {reason}")
            }
        };
        return report.failure(reason, &message, &steps);
    }
    let candidates: Vec<_> =
        candidates.iter().map(|candidate| self::candidate(candidate, policy, now)).collect();
    let answer = json!({
        "authority": authority,
        "service": report.service,
        "verdict": "ok",
        "route": report.route,
        "balance": policy.balance.as_str(),
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "candidates": candidates,
        "rejected": report.rejected,
    });
    json_of(StatusCode::OK, &answer)
}

fn candidate(candidate: &Candidate, policy: &Policy, now: std::time::Instant) -> Value {
    let Candidate { endpoint, share } = candidate;
    let record = &endpoint.record;
    let mut told =
        json!({"address": record.address.as_str(), "weight": record.weight, "share": share});
    if policy.balance.is_by_latency() {
        let latency = endpoint.load.latency().read(now, policy.peak_ewma_decay);
        told["latency_ms"] = json!(latency.map(|seconds| (seconds * 1e6).round() / 1e3));
        told["in_flight"] = json!(endpoint.load.in_flight());
    }
    told
}

/// The headers of the call: any number of `header=name: value`.
fn headers(query: &Query) -> Result<HeaderMap, String> {
    let header = |text: &str| {
        let (name, value) = text.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, value.trim().parse::<HeaderValue>().ok()?))
    };
    let read = |text: &str| {
        header(text).ok_or_else(|| format!("{text:?} is not a header; write header=name: value"))
    };
    query.all("header").map(read).collect()
}

/// A rule, and which of its ways this call would go. Where chance decides, it has decided.
fn route(rule: &Rule, taken: Option<&Way>) -> Value {
    let RouteMatch { authority, path, headers } = rule.asks_for();
    let (prefix, method) = match path {
        PathMatch::Any => (None, None),
        PathMatch::Prefix(prefix) => (Some(prefix), None),
        PathMatch::Method(method) => (None, Some(method)),
    };
    let header =
        |(name, value): &(HeaderName, ValueMatch)| (name.to_string(), json!(value.to_string()));
    let total: f64 = rule.ways().iter().map(|way| f64::from(way.weight)).sum();
    let way = |way: &Way| {
        json!({
            "service": way.service.as_str(),
            "filter": &**way.policy.filter.text(),
            "weight": way.weight,
            "share": f64::from(way.weight) / total,
            "taken": taken.is_some_and(|taken| std::ptr::eq(taken, way)),
        })
    };
    json!({
        "name": &**rule.name(),
        "authority": authority,
        "path_prefix": prefix,
        "method": method,
        "headers": headers.iter().map(header).collect::<serde_json::Map<_, _>>(),
        "fault": rule.fault().map(ToString::to_string),
        "ways": rule.ways().iter().map(way).collect::<Vec<_>>(),
    })
}

/// What is known of a call so far.
struct Report<'a> {
    authority: &'a str,
    /// Empty until a service is named.
    service: &'a str,
    route: Option<Value>,
    /// Records of the service that cannot be used.
    rejected: Vec<Value>,
}

impl Report<'_> {
    /// A call that would fail is a good answer: the status is 200, the verdict is the error's name.
    fn failure(&self, reason: Reason, message: &str, steps: &[Step]) -> Response<Full<Bytes>> {
        let answer = json!({
            "authority": self.authority,
            "service": self.service,
            "verdict": reason.as_str(),
            "message": message,
            "route": self.route,
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
            "candidates": [],
            "rejected": self.rejected,
        });
        json_of(StatusCode::OK, &answer)
    }
}

fn step(step: &Step) -> Value {
    let dropped =
        |(address, reason): &(String, String)| json!({"address": address, "reason": reason});
    let mut told = json!({
        "stage": step.stage,
        "kept": step.kept,
        "dropped": step.dropped.iter().map(dropped).collect::<Vec<_>>(),
    });
    if !step.note.is_empty() {
        told["note"] = json!(step.note);
    }
    told
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
