//! Walks the way of a call from this host, step by step, and says where it breaks and what to do.
//!
//! [`walk`] decides, lists, picks and connects with the code that a proxy does it with, from a
//! configuration alone; [`compare()`] holds what a running proxy knows against it. `pillion doctor` shows
//! the steps.

mod compare;
mod endpoints;
mod registry;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use serde::Serialize;
use tokio::time::Instant;

use crate::balance::{Candidate, Explanation, Plan, Tables, explain, explain_pin};
use crate::config::{HashOn, Policy, Settings};
use crate::model::{Selectors, ServiceName, Snapshot, stable_hash};
use crate::route::{Asked, Decision, Routed, Routes, key};

pub use compare::{Seen, compare};

/// The call in question.
#[derive(Clone, Debug)]
pub struct Question {
    /// `:authority`.
    pub authority: String,
    /// `:path`.
    pub path: String,
    /// Header `pillion-service`.
    pub service: Option<String>,
    /// Header `pillion-node`.
    pub node: Option<String>,
    /// Header `pillion-filter`.
    pub filter: Option<Selectors>,
    /// All other headers.
    pub headers: HeaderMap,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// Calls get through, but not as they should.
    Warning,
    /// Calls break here.
    Failed,
    /// Not looked into.
    Skipped,
}

/// One step of the way.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Which: `resolve`, `etcd`, `list`, `pick`, `connect`, `tls`, `settings`, `health`,
    /// `proxy`.
    pub step: &'static str,
    /// On what.
    pub on: String,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took, in milliseconds; none for what takes no time.
    pub took_ms: Option<f64>,
    /// What was found.
    pub detail: String,
    /// What to do, where it did not go well.
    pub advice: Option<String>,
}

/// The whole way, as far as it goes.
#[derive(Clone, Debug)]
pub struct Walk {
    /// In their order.
    pub steps: Vec<Step>,
    /// The service, once it is known.
    pub service: Option<ServiceName>,
    /// What the registry holds of it; none when that could not be told.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Step {
    /// A step that went well.
    pub fn ok(step: &'static str, on: impl Into<String>, detail: impl Into<String>) -> Self {
        let (on, detail, outcome) = (on.into(), detail.into(), Outcome::Ok);
        Self { step, on, outcome, took_ms: None, detail, advice: None }
    }

    fn took(self, took: Duration) -> Self {
        // To a tenth: more says nothing.
        Self { took_ms: Some((took.as_secs_f64() * 10_000.0).round() / 10.0), ..self }
    }

    /// The same with another outcome, and advice.
    pub fn but(self, outcome: Outcome, advice: impl Into<String>) -> Self {
        Self { outcome, advice: Some(advice.into()), ..self }
    }
}

/// Goes the way of a call as far as it leads.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn walk(settings: &Settings, question: &Question) -> Walk {
    let mut walk = Walk { steps: Vec::new(), service: None, snapshot: None };
    let routes = Routes::new(settings);
    let hash_key = question.headers.get(HashOn::HEADER);
    let asked = Asked {
        authority: &question.authority,
        path: &question.path,
        service: question.service.as_deref(),
        headers: &question.headers,
        hash_key: hash_key.map(|value| stable_hash(value.as_bytes())),
        source: None,
    };
    let Some((routed, service)) = resolve(&routes, asked, &mut walk.steps) else { return walk };
    let policy = match routed.rule {
        Some((_, way)) => &way.policy,
        None => settings.policy(&service),
    };
    walk.service = Some(service.clone());
    registry::ask_members(settings, &mut walk.steps).await;
    let Some(snapshot) = registry::list(settings, &service, policy, &mut walk.steps).await else {
        return walk;
    };
    let pin = question.node.as_deref().or(routed.node);
    let filter = question.filter.as_ref().unwrap_or(&policy.filter);
    let explained = match pin {
        Some(pin) => explain_pin(&snapshot, pin),
        None => {
            let (plan, key) =
                (Plan::new(policy, &settings.node), key(&policy.hash_on, asked.shown()));
            let now = Instant::now().into_std();
            explain(&snapshot, filter, &plan, &Tables::default(), key, now)
        }
    };
    let candidates = pick(&snapshot, explained, pin, policy, &mut walk.steps);
    endpoints::connect(&candidates, policy, &service, &mut walk.steps).await;
    walk.snapshot = Some(snapshot);
    walk
}

fn resolve<'a>(
    routes: &'a Routes,
    asked: Asked<'a>,
    steps: &mut Vec<Step>,
) -> Option<(Routed<'a>, ServiceName)> {
    let step = |detail: String| Step::ok("resolve", asked.authority, detail);
    let bad = |wrong: String| {
        step(wrong).but(
            Outcome::Failed,
            "set the authority to the service's name, or map it with a [[route]]",
        )
    };
    match routes.decide(asked) {
        Err(wrong) => steps.push(bad(wrong.to_string())),
        Ok(Decision::Respond(rule, _)) => {
            let text = format!("route {} answers itself; no endpoint is asked", rule.name());
            steps.push(step(text));
        }
        Ok(Decision::Forward(routed)) => {
            let by = match (asked.service, routed.rule) {
                (Some(_), _) => "the header pillion-service".to_owned(),
                (None, Some((rule, _))) => format!("route {}", rule.name()),
                (None, None) => "the authority".to_owned(),
            };
            match routed.service.parse() {
                Ok(service) => {
                    steps.push(step(format!("{by} names the service {}", routed.service)));
                    return Some((routed, service));
                }
                Err(wrong) => steps.push(bad(format!("{wrong}"))),
            }
        }
    }
    None
}

/// The endpoints that the first attempt may go to.
fn pick(
    snapshot: &Snapshot,
    explained: Explanation,
    pin: Option<&str>,
    policy: &Policy,
    steps: &mut Vec<Step>,
) -> Vec<endpoints::Candidate> {
    let Explanation { steps: stages, candidates } = explained;
    let stages: Vec<_> =
        stages.iter().map(|stage| format!("{} {}", stage.stage, stage.kept)).collect();
    let step = Step::ok("pick", policy.balance.as_str(), stages.join(" > "));
    if candidates.is_empty() {
        let advice = match (snapshot.endpoints.is_empty(), pin) {
            (true, _) => "nothing is registered: see the step before",
            (false, Some(_)) => {
                "no endpoint has that address or id; `pillion registry ls` shows them"
            }
            (false, None) => {
                "no endpoint meets the filter: see versions, zones and metadata with \
                              `pillion registry ls`, or let the filter end in `;` for any"
            }
        };
        steps.push(step.but(Outcome::Failed, advice));
        return Vec::new();
    }
    steps.push(step);
    let candidate = |candidate: Candidate| endpoints::Candidate {
        record: Arc::clone(&candidate.endpoint.record),
        networks: Arc::clone(&candidate.endpoint.networks),
        share: candidate.share,
    };
    candidates.into_iter().map(candidate).collect()
}

/// How long a future takes, and what comes of it.
async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = future.await;
    (result, began.elapsed())
}
