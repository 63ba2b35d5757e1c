//! Why which endpoints are left: the stages of a pick, one by one.

use std::sync::Arc;

use super::{Pins, Subset};
use crate::model::{Endpoint, Selector, Selectors, Snapshot, State};

/// One stage: how many endpoints it kept, and which it dropped, and why.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was asked, such as `filter version=v2`.
    pub stage: String,
    /// Endpoints left.
    pub kept: usize,
    /// Address and reason of each endpoint left out.
    pub dropped: Vec<(String, String)>,
}

/// The stages of a call, and the endpoints that are left for its first attempt.
#[derive(Debug)]
pub struct Explanation {
    /// In the order that they are taken.
    pub steps: Vec<Step>,
    /// What remains; none where nothing does.
    pub candidates: Option<Subset>,
}

/// Explains a call without a pin. Each rule is a stage of its own: the first that leaves an endpoint
/// decides.
pub fn explain(snapshot: &Snapshot, selectors: &Selectors) -> Explanation {
    let mut steps = vec![known(snapshot)];
    for selector in selectors.rules() {
        let subset = Subset::new(snapshot, selector);
        let dropped = snapshot
            .endpoints
            .iter()
            .filter(|endpoint| !subset.members().iter().any(|kept| Arc::ptr_eq(kept, endpoint)))
            .map(|endpoint| (endpoint.record.address.to_string(), why(endpoint, selector)))
            .collect();
        let stage =
            if selector.is_empty() { "any".to_owned() } else { format!("filter {selector}") };
        steps.push(Step { stage, kept: subset.members().len(), dropped });
        if !subset.members().is_empty() {
            return Explanation { steps, candidates: Some(subset) };
        }
    }
    Explanation { steps, candidates: None }
}

/// Explains a call with a pin: filters and states do not matter then.
pub fn explain_pin(snapshot: &Snapshot, pin: &str) -> Explanation {
    let named = Pins::new(snapshot).find_pin(pin).to_vec();
    let is_other = |endpoint: &&Arc<Endpoint>| {
        !named.iter().any(|named| named.record.address == endpoint.record.address)
    };
    let dropped = snapshot.endpoints.iter().filter(is_other);
    let dropped =
        dropped.map(|endpoint| (endpoint.record.address.to_string(), "another node".to_owned()));
    let step = Step { stage: format!("node {pin}"), kept: named.len(), dropped: dropped.collect() };
    let candidates = (!named.is_empty()).then(|| Subset::of(named));
    Explanation { steps: vec![known(snapshot), step], candidates }
}

fn known(snapshot: &Snapshot) -> Step {
    Step { stage: "known".to_owned(), kept: snapshot.endpoints.len(), dropped: Vec::new() }
}

fn why(endpoint: &Endpoint, selector: &Selector) -> String {
    match (selector.first_failed(endpoint), endpoint.state()) {
        (_, State::Forbidden) => "state=forbidden in its metadata".to_owned(),
        (Some(requirement), _) => format!("not {requirement}"),
        (None, State::Suspect) => "vanished from the registry, not dialled yet".to_owned(),
        (None, State::Drained | State::Ready) => "weight 0: drained".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::subset::tests::snapshot;

    #[test]
    fn each_rule_is_a_step_that_says_what_it_dropped_and_why() {
        let snapshot = snapshot(&[1, 0, 3]);
        let explained = explain(&snapshot, &"version=v9;version=v1".parse().unwrap());
        let stages: Vec<_> = explained.steps.iter().map(|step| (&*step.stage, step.kept)).collect();
        assert_eq!(stages, [("known", 3), ("filter version=v9", 0), ("filter version=v1", 2)]);
        assert_eq!(
            explained.steps[2].dropped,
            [("10.0.0.1:80".to_owned(), "not version=v1".to_owned())]
        );
        let shares: Vec<_> =
            explained.candidates.unwrap().shares().map(|share| share.share).collect();
        assert_eq!(shares, [0.25, 0.75]);
    }

    #[test]
    fn a_drained_endpoint_is_dropped_for_its_weight_and_reached_by_a_pin() {
        let snapshot = snapshot(&[1, 0]);
        let explained = explain(&snapshot, &Selectors::default());
        assert_eq!(explained.steps[1].dropped[0].1, "weight 0: drained");
        let pinned = explain_pin(&snapshot, "10.0.0.1:80");
        assert_eq!(pinned.candidates.unwrap().members().len(), 1);
        assert!(explain_pin(&snapshot, "10.9.9.9:80").candidates.is_none());
    }
}
