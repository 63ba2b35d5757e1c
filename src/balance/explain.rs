//! Why which endpoints are left: the stages of a pick, one by one.
//!
//! `GET /why` asks. What is told comes from the stages that picks take, not from a copy of them.

mod story;

use std::{sync::Arc, time::Instant};

use self::story::Story;
use super::{
    Pins, Plan, Tables,
    by_key::ByKey,
    members::Members,
    play::play,
    stages::rule_name,
    standard::{Standard, standards},
    wheel::Wheel,
};
use crate::model::{Endpoint, Selector, Selectors, Snapshot, State};

/// One stage: how many endpoints it kept, and which it dropped, and why.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What was asked, such as `filter version=v2`.
    pub stage: String,
    /// Endpoints left.
    pub kept: usize,
    /// The figures that decided; empty where there are none.
    pub note: String,
    /// Address and reason of each endpoint left out.
    pub dropped: Vec<(String, String)>,
}

/// An endpoint that the first attempt may go to.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which.
    pub endpoint: Arc<Endpoint>,
    /// Part of such calls that it gets by its weight, 0 to 1. Balancers that look at latency or calls
    /// in flight shift it.
    pub share: f64,
}

/// The stages of a call, and the endpoints that are left for its first attempt.
#[derive(Debug)]
pub struct Explanation {
    /// In the order that they are taken.
    pub steps: Vec<Step>,
    /// What remains; empty where nothing does.
    pub candidates: Vec<Candidate>,
}

/// Explains a call without a pin. Each rule is a stage of its own: the first that leaves an endpoint
/// decides, and the stages that follow are taken for that one.
pub fn explain(
    snapshot: &Snapshot,
    selectors: &Selectors,
    plan: &Plan,
    tables: &Tables,
    key: Option<u64>,
    now: Instant,
) -> Explanation {
    let mut steps = vec![known(snapshot)];
    let members = selectors.rules().iter().map(|selector| Members::new(snapshot, selector));
    let members: Vec<_> = members.collect();
    let standards = standards(&members, plan.panic_threshold);
    for ((selector, members), standard) in selectors.rules().iter().zip(&members).zip(standards) {
        steps.push(filtered(snapshot, selector, members));
        if members.len() == 0 {
            continue;
        }
        let mut story = Story::new(members, plan, now);
        let play = play(members, plan, standard, now, &mut story);
        steps.extend(story.into_steps());
        let wheel = play.wheel(members);
        if wheel.total() == 0 {
            continue;
        }
        let mut found = None;
        if plan.balance.is_by_key() {
            let shared = tables.of(&snapshot.service, selectors.text());
            let by_key = ByKey::new(plan.balance, members, &play, shared);
            found = key.and_then(|key| by_key.find(members, &wheel, key, &[]));
            let way = key.map(|key| by_key.way(&wheel, key).take(3).collect());
            steps.push(keyed(members, &wheel, plan, way.unwrap_or_default(), found));
        }
        return Explanation { steps, candidates: candidates(members, &wheel, found) };
    }
    Explanation { steps, candidates: Vec::new() }
}

/// The stages of one rule, by which an endpoint was picked, or none was, and by which standard.
pub fn explain_rule(
    snapshot: &Snapshot,
    selector: &Selector,
    plan: &Plan,
    standard: Standard,
    now: Instant,
) -> Vec<Step> {
    let members = Members::new(snapshot, selector);
    let mut steps = vec![filtered(snapshot, selector, &members)];
    if members.len() > 0 {
        let mut story = Story::new(&members, plan, now);
        play(&members, plan, standard, now, &mut story);
        steps.extend(story.into_steps());
    }
    steps
}

/// Explains a call with a pin: filters, states and balancing do not matter then.
pub fn explain_pin(snapshot: &Snapshot, pin: &str) -> Explanation {
    let named = Pins::new(snapshot).find_pin(pin).to_vec();
    let is_other = |endpoint: &&Arc<Endpoint>| {
        !named.iter().any(|named| named.record.address == endpoint.record.address)
    };
    let dropped = snapshot.endpoints.iter().filter(is_other);
    let dropped = dropped.map(|endpoint| (address(endpoint), "another node".to_owned())).collect();
    let stage = format!("node {pin}");
    let step = Step { stage, kept: named.len(), dropped, ..Step::default() };
    let members = Members::of(named);
    let wheel = Wheel::new(members.weights().map(u64::from));
    let candidates = candidates(&members, &wheel, None);
    Explanation { steps: vec![known(snapshot), step], candidates }
}

/// Who has a share; only `found`, where a key has decided.
fn candidates(members: &Members, wheel: &Wheel, found: Option<usize>) -> Vec<Candidate> {
    let candidate = |at: usize| Candidate {
        endpoint: Arc::clone(&members.endpoints()[at]),
        share: if found.is_some() { 1.0 } else { wheel.weight(at) as f64 / wheel.total() as f64 },
    };
    let is_candidate = |at: &usize| found.unwrap_or(*at) == *at && wheel.weight(*at) > 0;
    (0..members.len()).filter(is_candidate).map(candidate).collect()
}

fn known(snapshot: &Snapshot) -> Step {
    Step { stage: "known".to_owned(), kept: snapshot.endpoints.len(), ..Step::default() }
}

fn filtered(snapshot: &Snapshot, selector: &Selector, members: &Members) -> Step {
    let mut kept = members.endpoints().iter().peekable();
    let mut dropped = Vec::new();
    for endpoint in &snapshot.endpoints {
        if kept.next_if(|kept| Arc::ptr_eq(kept, endpoint)).is_none() {
            dropped.push((address(endpoint), why(endpoint, selector)));
        }
    }
    Step { stage: rule_name(selector), kept: members.len(), dropped, ..Step::default() }
}

fn why(endpoint: &Endpoint, selector: &Selector) -> String {
    match (selector.first_failed(endpoint), endpoint.state()) {
        (_, State::Forbidden) => "state=forbidden in its metadata".to_owned(),
        (Some(requirement), _) => format!("not {requirement}"),
        (None, _) => "weight 0: drained".to_owned(),
    }
}

/// What the key of the call comes to: the first endpoints on its way, and which one takes the call.
fn keyed(
    members: &Members,
    wheel: &Wheel,
    plan: &Plan,
    way: Vec<usize>,
    found: Option<usize>,
) -> Step {
    let name = |at: usize| address(&members.endpoints()[at]);
    let in_play = (0..members.len()).filter(|&at| wheel.weight(at) > 0).count();
    let note = match (way.first(), found) {
        (Some(first), Some(found)) if *first != found => {
            format!(
                "the key's endpoint is {}, which is new or full; then {}",
                name(*first),
                name(found)
            )
        }
        (Some(_), Some(_)) => {
            let way: Vec<_> = way.into_iter().map(name).collect();
            format!("the key's endpoint is {}", way.join(", then "))
        }
        _ => "the call has no key: picked as by p2c".to_owned(),
    };
    let stage = plan.balance.as_str().to_owned();
    Step { stage, kept: found.map_or(in_play, |_| 1), note, ..Step::default() }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.record.address.to_string()
}

#[cfg(test)]
mod tests;
