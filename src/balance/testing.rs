//! Services as the tests of this module want them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Choice, Plan, Tables, members::Members, play::Part};
use crate::{
    config::{Balance, Node, Policy},
    model::{Endpoint, Load, Record, Selector, Service, Snapshot},
};

/// A service whose endpoints a test sets up one property after the other.
pub(super) struct Fixture(Vec<(Record, Load)>);

impl Fixture {
    /// Endpoints e00000:80 and up, of weight 1, and of versions v1 and v2 in turn.
    pub(super) fn new(size: usize) -> Self {
        let record = |at: usize| {
            let mut record = Record::new(format!("e{at:05}:80").parse().unwrap(), "test");
            record.weight = 1;
            record.version = format!("v{}", at % 2 + 1);
            (record, Load::default())
        };
        Self((0..size).map(record).collect())
    }

    /// Endpoints with these weights.
    pub(super) fn weights(weights: &[u32]) -> Self {
        Self::new(weights.len()).each(|at, record| record.weight = weights[at])
    }

    pub(super) fn zone(self, zone: impl Fn(usize) -> &'static str) -> Self {
        self.each(|at, record| record.zone = zone(at).to_owned())
    }

    pub(super) fn priority(self, priority: impl Fn(usize) -> u32) -> Self {
        self.each(|at, record| {
            record.metadata.insert("priority".to_owned(), priority(at).to_string());
        })
    }

    /// The endpoint at this place joined so long ago.
    pub(super) fn joined(mut self, at: usize, ago: Duration, now: Instant) -> Self {
        self.0[at].1 = Load::joined_at(now - ago);
        self
    }

    fn each(mut self, set: impl Fn(usize, &mut Record)) -> Self {
        self.0.iter_mut().enumerate().for_each(|(at, (record, _))| set(at, record));
        self
    }

    pub(super) fn snapshot(self) -> Snapshot {
        let mut snapshot = Snapshot::empty("orders".parse().unwrap());
        for (record, load) in self.0 {
            let (source, key) = ("main".into(), record.address.as_str().into());
            snapshot.endpoints.push(Arc::new(Endpoint {
                record: record.into(),
                source,
                key,
                load: load.into(),
                networks: Arc::default(),
            }));
        }
        snapshot
    }

    pub(super) fn members(self) -> Members {
        Members::new(&self.snapshot(), &Selector::default())
    }
}

/// A policy that differs from the default in the balancer.
pub(super) fn by(balance: Balance) -> Policy {
    Policy { balance, ..Policy::default() }
}

/// What calls with these selectors choose from, on node `n` in zone `a`.
pub(super) fn choice(snapshot: &Snapshot, selectors: &str, policy: &Policy) -> Choice {
    let node = Node { id: "n".to_owned(), zone: "a".to_owned(), ..Node::default() };
    let (selectors, plan) = (selectors.parse().unwrap(), Plan::new(policy, &node));
    Choice::new(snapshot, &selectors, &plan, &Tables::default(), Instant::now())
}

/// Says whether an endpoint can take calls.
pub(super) fn set_usable(service: &Service, endpoint: &Endpoint, usable: bool) {
    service.set_unhealthy(endpoint, (!usable).then(|| "says so".to_owned()), Instant::now());
}

/// Part of the calls of those in play, by a name of theirs.
pub(super) fn loads(parts: &[Part], name: impl Fn(usize) -> String) -> BTreeMap<String, f64> {
    let size = |part: &Part| if part.is_in_play() { part.size } else { 0.0 };
    let total: f64 = parts.iter().map(size).sum();
    let mut loads = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        *loads.entry(name(at)).or_insert(0.0) += size(part) / total;
    }
    loads
}

/// Whether `counts` may be of a draw in which each had this weight: Pearson's chi-square, at a level
/// that a right one misses once in a million times.
pub(super) fn fits(counts: &[usize], weights: &[f64]) -> bool {
    let (drawn, total) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
    let terms = counts.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let chi: f64 = terms
        .map(|(count, weight)| {
            let expected = drawn * weight / total;
            (*count as f64 - expected).powi(2) / expected
        })
        .sum();
    let impossible = counts.iter().zip(weights).any(|(count, weight)| *weight == 0.0 && *count > 0);
    // Wilson and Hilferty's approximation of the quantile.
    let free = weights.iter().filter(|weight| **weight > 0.0).count() as f64 - 1.0;
    let spread = 2.0 / (9.0 * free);
    !impossible && (free == 0.0 || chi < free * (1.0 - spread + 4.75 * spread.sqrt()).powi(3))
}

#[test]
fn a_fit_is_told_from_a_misfit() {
    assert!(fits(&[1000, 2050, 2950], &[1.0, 2.0, 3.0]));
    assert!(!fits(&[1000, 2300, 2700], &[1.0, 2.0, 3.0]));
    assert!(!fits(&[1000, 1], &[1.0, 0.0]));
}
