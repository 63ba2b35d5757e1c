//! One call, put into words.

use std::{borrow::Cow, time::Duration, time::SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    call::{CallMeta, Kind, Outcome, Spent, bounded, millis},
    model::stable_hash,
};

/// Longest path, authority, filter or name that is told, in bytes.
const MOST_TEXT: usize = 256;
/// Longest message.
const MOST_MESSAGE: usize = 1024;
/// Stages that are told, the last ones.
const MOST_STAGES: usize = 16;
/// Attempts that are told, the last ones.
const MOST_ATTEMPTS: usize = 16;

/// One call: what filters look at, and all of it as JSON.
#[derive(Debug)]
pub struct Entry {
    pub(super) service: Box<str>,
    pub(super) path: Box<str>,
    pub(super) status: Cow<'static, str>,
    pub(super) error: &'static str,
    pub(super) waited: Duration,
    /// The same for calls of one service that ended alike.
    pub(super) kind: u64,
    json: Box<str>,
}

/// How long `call`, which is over at `now`, waited for its answer to begin; all of its time, where none
/// did. The time of a stream says nothing of whether it was slow.
pub(super) fn waited(call: &CallMeta, now: Instant) -> Duration {
    call.ledger.answered_at().unwrap_or(now).saturating_duration_since(call.arrived)
}

/// What tells calls of one service that ended alike from others.
pub(super) fn kind(call: &CallMeta, status: &str, error: &str) -> u64 {
    stable_hash([service(call), status, error].join("\0").as_bytes())
}

impl Entry {
    /// The call, which is over at `now`; `left_out` calls of its kind before it were not recorded.
    ///
    /// Metadata of the call is not told, whose values may be secrets; nor is what the endpoint said.
    pub(super) fn new(call: &CallMeta, outcome: Outcome, now: Instant, left_out: u64) -> Self {
        let (status, error) = outcome.told(call.kind);
        let path = bounded(call.uri.path(), MOST_TEXT);
        let waited = waited(call, now);
        let spent = Spent::new(call, now, Some(outcome.of_attempt()));
        let mut told = json!({
            "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "service": service(call),
            "authority": bounded(call.authority(), MOST_TEXT),
            "path": path,
            "kind": match call.kind { Kind::Grpc => "grpc", Kind::Http => "http" },
            "status": status,
            "error": error,
            "message": bounded(call.message(), MOST_MESSAGE),
            "duration_ms": millis(spent.total),
            "waited_ms": millis(waited),
            "slow": is_slow(call, waited),
            "spent": spent.to_json(MOST_ATTEMPTS),
        });
        for (name, value) in decision(call) {
            told[name] = value;
        }
        if left_out > 0 {
            told["left_out"] = left_out.into();
        }
        Self {
            service: service(call).into(),
            path: path.into(),
            kind: kind(call, &status, error),
            status,
            error,
            waited,
            json: told.to_string().into(),
        }
    }

    /// All of it: one line of JSON, without its end.
    pub const fn json(&self) -> &str {
        &self.json
    }

    /// Bytes of text that it holds.
    pub(super) const fn bytes(&self) -> usize {
        self.service.len() + self.path.len() + self.json.len()
    }
}

/// Whether the policy of the call calls such a wait slow.
pub(super) fn is_slow(call: &CallMeta, waited: Duration) -> bool {
    let slow = call.target.get().and_then(|target| target.policy.slow_call);
    slow.is_some_and(|slow| waited >= slow)
}

/// The service that it went to, or asked for.
fn service(call: &CallMeta) -> &str {
    match call.target.get() {
        Some(target) => target.view.name().as_str(),
        None => call.named.get().map_or("", |name| name.as_str()),
    }
}

/// What led where it went; what had no part in it is left out.
fn decision(call: &CallMeta) -> impl Iterator<Item = (&'static str, Value)> {
    let text = |text: &str| Value::from(bounded(text, MOST_TEXT));
    let target = call.target.get();
    let route = target.and_then(|target| target.rule.as_ref()).map(|rule| rule.name());
    let filter = target.map(|target| target.selectors.text()).filter(|text| !text.is_empty());
    let deadline = call.deadline.get().map(|deadline| millis(deadline - call.arrived));
    [
        ("route", route.or_else(|| call.answered_by.get()).map(|name| text(name))),
        ("node", call.pin.get().map(|pin| text(pin))),
        ("filter", filter.map(|filter| text(filter))),
        (
            "filter_of",
            filter.map(|_| if call.filter.get().is_some() { "caller" } else { "policy" }.into()),
        ),
        ("rule", call.rule().map(|rule| text(&rule))),
        ("hash_key", call.key.get().map(|key| format!("{key:016x}").into())),
        ("stages", stages(call)),
        ("dropped", dropped(call).map(|dropped| bounded(&dropped, MOST_MESSAGE).into())),
        ("balance", target.map(|target| target.policy.balance.as_str().into())),
        ("not_retried", call.not_retried.get().map(Value::from)),
        ("deadline_ms", deadline.map(Value::from)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// The last stages, with the endpoints that each kept.
fn stages(call: &CallMeta) -> Option<Value> {
    let stages = call.stages();
    let last = stages.len().saturating_sub(MOST_STAGES);
    let stage =
        |(stage, kept): &(String, usize)| json!({"stage": bounded(stage, MOST_TEXT), "kept": kept});
    (!stages.is_empty()).then(|| stages[last..].iter().map(stage).collect())
}

/// Why endpoints were left out, where none was left.
fn dropped(call: &CallMeta) -> Option<std::rc::Rc<str>> {
    let is_picked = call.decided.borrow().as_ref().is_none_or(|decided| decided.rule.is_some());
    if is_picked { None } else { call.dropped() }
}

#[cfg(test)]
impl Entry {
    /// A call of this service that ended with this status, with so many bytes of text.
    pub(super) fn of(service: &str, status: &'static str, bytes: usize) -> Self {
        Self {
            service: service.into(),
            path: "/".into(),
            status: status.into(),
            error: "",
            waited: Duration::ZERO,
            kind: stable_hash([service, status].join(" ").as_bytes()),
            json: "x".repeat(bytes).into(),
        }
    }
}
