//! What a running proxy knows, beside what the registry holds.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Outcome, Step};
use crate::model::Snapshot;

/// `GET /services/NAME` of a proxy, as far as it is compared.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    endpoints: Vec<SeenEndpoint>,
}

#[derive(Clone, Debug, Deserialize)]
struct SeenEndpoint {
    address: String,
    weight: u32,
    state: String,
}

/// Differences that are shown of each kind.
const SHOWN: usize = 5;

/// Whether the proxy at `url` knows what `snapshot` holds; without one there is nothing to compare.
pub fn compare(url: &str, snapshot: Option<&Snapshot>, seen: &Seen) -> Step {
    let Some(snapshot) = snapshot else {
        let count = seen.endpoints.len();
        return Step::ok("proxy", url, format!("it knows {count} endpoints of the service"));
    };
    let here: BTreeMap<&str, u32> = snapshot
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.record.address.as_str(), endpoint.record.weight))
        .collect();
    let there: BTreeMap<&str, &SeenEndpoint> =
        seen.endpoints.iter().map(|endpoint| (&*endpoint.address, endpoint)).collect();
    let missing = here.keys().filter(|address| !there.contains_key(**address)).copied();
    let extra = there.keys().filter(|address| !here.contains_key(**address)).copied();
    let weights = there
        .iter()
        .filter(|(address, seen)| here.get(**address).is_some_and(|weight| *weight != seen.weight));
    let mut differences = Vec::new();
    differences.extend(list("it does not know", missing.collect()));
    differences.extend(list("it still knows", extra.collect()));
    differences.extend(list("it has another weight of", weights.map(|(a, _)| *a).collect()));
    if !differences.is_empty() {
        let step = Step::ok("proxy", url, differences.join("; "));
        return step.but(
            Outcome::Failed,
            "does it run with the same configuration (`pillion config`), and does it reach etcd \
             (`/ready`, pillion_source_age_seconds)?",
        );
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for endpoint in &seen.endpoints {
        *states.entry(&endpoint.state).or_default() += 1;
    }
    let counts: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let step = Step::ok("proxy", url, format!("knows the same: {}", counts.join(", ")));
    match states.keys().find(|state| ["ejected", "unhealthy"].contains(state)) {
        None => step,
        Some(state) => step.but(
            Outcome::Warning,
            format!("endpoints that are {state} take no calls now: `pillion services` shows which"),
        ),
    }
}

fn list(what: &str, addresses: Vec<&str>) -> Option<String> {
    let shown = addresses[..addresses.len().min(SHOWN)].join(", ");
    match (addresses.len(), addresses.len().saturating_sub(SHOWN)) {
        (0, _) => None,
        (_, 0) => Some(format!("{what} {shown}")),
        (_, more) => Some(format!("{what} {shown} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Endpoint, Record};

    fn snapshot(endpoints: &[(&str, u32)]) -> Snapshot {
        let endpoint = |(address, weight): &(&str, u32)| {
            let record = Record::new(address.parse().unwrap(), "test");
            Arc::new(Endpoint {
                record: Record { weight: *weight, ..record }.into(),
                source: "main".into(),
                key: "".into(),
                load: Arc::default(),
                networks: Arc::default(),
            })
        };
        let endpoints = endpoints.iter().map(endpoint).collect();
        Snapshot { endpoints, ..Snapshot::empty("orders".parse().unwrap()) }
    }

    fn seen(endpoints: &[(&str, u32, &str)]) -> Seen {
        let endpoint = |(address, weight, state): &(&str, u32, &str)| SeenEndpoint {
            address: (*address).to_owned(),
            weight: *weight,
            state: (*state).to_owned(),
        };
        Seen { endpoints: endpoints.iter().map(endpoint).collect() }
    }

    #[test]
    fn a_proxy_that_knows_the_same_is_well_unless_it_leaves_endpoints_out() {
        let here = snapshot(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 2)]);
        let both = |state| seen(&[("10.0.0.1:80", 1, "ready"), ("10.0.0.2:80", 2, state)]);
        let step = compare("url", Some(&here), &both("ready"));
        assert_eq!((step.outcome, &*step.detail), (Outcome::Ok, "knows the same: 2 ready"));
        let step = compare("url", Some(&here), &both("ejected"));
        assert_eq!(step.outcome, Outcome::Warning);
    }

    #[test]
    fn what_a_proxy_misses_or_still_knows_is_told() {
        let here = snapshot(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 2)]);
        let step = compare(
            "url",
            Some(&here),
            &seen(&[("10.0.0.2:80", 3, "ready"), ("10.0.0.9:80", 1, "ready")]),
        );
        assert_eq!(step.outcome, Outcome::Failed);
        assert_eq!(
            step.detail,
            "it does not know 10.0.0.1:80; it still knows 10.0.0.9:80; it has another weight of \
             10.0.0.2:80"
        );
    }
}
