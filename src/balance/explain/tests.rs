use std::time::Duration;

use super::*;
use crate::{
    balance::testing::{Fixture, by, set_usable},
    config::{Balance, Node, Policy, ZonePreference},
    model::Service,
};

fn told(snapshot: &Snapshot, selectors: &str, policy: &Policy, key: Option<u64>) -> Explanation {
    let node = Node { zone: "a".to_owned(), ..Node::default() };
    let (selectors, plan) = (selectors.parse().unwrap(), Plan::new(policy, &node));
    explain(snapshot, &selectors, &plan, &Tables::default(), key, Instant::now())
}

fn stages(explained: &Explanation) -> Vec<(&str, usize)> {
    explained.steps.iter().map(|step| (&*step.stage, step.kept)).collect()
}

fn shares(explained: &Explanation) -> Vec<f64> {
    explained.candidates.iter().map(|candidate| candidate.share).collect()
}

#[test]
fn each_rule_is_a_step_that_says_what_it_dropped_and_why() {
    let snapshot = Fixture::weights(&[1, 0, 3]).snapshot();
    let explained = told(&snapshot, "version=v9;version=v1", &Policy::default(), None);
    assert_eq!(
        stages(&explained),
        [("known", 3), ("filter version=v9", 0), ("filter version=v1", 2)]
    );
    let dropped = [("e00001:80".to_owned(), "not version=v1".to_owned())];
    assert_eq!(explained.steps[2].dropped, dropped);
    assert_eq!(shares(&explained), [0.25, 0.75]);
}

#[test]
fn a_drained_endpoint_is_dropped_for_its_weight_and_reached_by_a_pin() {
    let snapshot = Fixture::weights(&[1, 0]).snapshot();
    let explained = told(&snapshot, "", &Policy::default(), None);
    assert_eq!(explained.steps[1].dropped[0].1, "weight 0: drained");
    let pinned = explain_pin(&snapshot, "e00001:80");
    assert_eq!((pinned.candidates.len(), shares(&pinned)), (1, vec![1.0]));
    assert!(explain_pin(&snapshot, "e99999:80").candidates.is_empty());
}

#[test]
fn each_stage_tells_whom_it_left_out_and_by_which_figures() {
    let start = Instant::now();
    let fixture = Fixture::new(12).zone(|at| ["a", "a", "b", "b"][at % 4]);
    let fixture = fixture.priority(|at| u32::from(at >= 8)).joined(5, Duration::ZERO, start);
    let snapshot = fixture.snapshot();
    let service = Service::new(snapshot.clone());
    set_usable(&service, &snapshot.endpoints[1], false);
    let policy = Policy {
        zone_preference: ZonePreference::Prefer,
        subset: 2,
        slow_start: Duration::from_secs(100),
        ..Policy::default()
    };
    let explained = told(&snapshot, "", &policy, None);
    assert_eq!(
        stages(&explained),
        [
            ("known", 12),
            ("any", 12),
            ("usable", 11),
            ("priority", 7),
            ("zone a", 3),
            ("subset 2", 2),
            ("slow_start 1m 40s", 2),
        ]
    );
    assert_eq!(
        explained.steps[3].note,
        "priority 0: 7 of 8 usable, gets 100%; priority 1: 4 of 4 usable, gets 0%"
    );
    assert_eq!(
        explained.steps[4].note,
        "an even share is 50%; a: 3 of 4 usable, 43% of the weight, gets 100%; \
         b: 4 of 4 usable, 57% of the weight, gets 0%"
    );
    let reasons: Vec<_> =
        explained.steps[2..].iter().filter_map(|step| Some(&*step.dropped.first()?.1)).collect();
    assert_eq!(
        reasons,
        [
            "unhealthy: says so",
            "a priority before it carries all calls",
            "zone a carries all calls",
            "not among those of this proxy",
        ]
    );
    assert_eq!(explained.steps[6].note, "e00005:80 has 10% of its weight");
}

#[test]
fn shares_are_those_that_picks_come_to() {
    let policy = Policy { zone_preference: ZonePreference::Prefer, ..Policy::default() };
    let snapshot = Fixture::new(10).zone(|at| if at < 1 { "a" } else { "b" }).snapshot();
    let explained = told(&snapshot, "", &policy, None);
    // A tenth of the weight, where an even share is a half, carries 1.4 * 0.1 / 0.5 of the calls.
    assert!((shares(&explained)[0] - 0.28).abs() < 1e-6, "{:?}", shares(&explained));
}

#[test]
fn a_key_comes_to_one_endpoint_and_no_key_to_all() {
    let snapshot = Fixture::new(10).snapshot();
    for balance in [Balance::RingHash, Balance::Maglev] {
        let keyed = told(&snapshot, "", &by(balance), Some(7));
        let picked = crate::balance::testing::choice(&snapshot, "", &by(balance));
        let picked = picked.pick(Some(7), &[]).unwrap().endpoint.record.address.to_string();
        assert_eq!(stages(&keyed)[2], (balance.as_str(), 1));
        assert_eq!(keyed.candidates[0].endpoint.record.address.as_str(), picked);
        let note = &keyed.steps[2].note;
        assert!(note.starts_with(&format!("the key's endpoint is {picked}, then e0")), "{note}");
        let without = told(&snapshot, "", &by(balance), None);
        assert_eq!((stages(&without)[2], without.candidates.len()), ((balance.as_str(), 10), 10));
    }
}
