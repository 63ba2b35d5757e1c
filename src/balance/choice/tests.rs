use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::*;
use crate::{
    balance::testing::{Fixture, by, choice, fits, set_usable},
    config::{Balance, Policy, ZonePreference},
    model::{Service, stable_hash},
};

const ALL: [Balance; 6] = [
    Balance::WeightedRandom,
    Balance::RoundRobin,
    Balance::P2c,
    Balance::PeakEwma,
    Balance::RingHash,
    Balance::Maglev,
];

fn of(weights: &[u32], selectors: &str, balance: Balance) -> Choice {
    choice(&Fixture::weights(weights).snapshot(), selectors, &by(balance))
}

/// Picks without a call in flight, of calls that all have keys, each its own.
fn first(choice: &Choice, number: usize) -> &Arc<Endpoint> {
    choice.pick(Some(stable_hash(&number.to_le_bytes())), &[]).unwrap().endpoint
}

/// How many of `calls` calls each endpoint got, `concurrent` of them at once.
fn counts(choice: &Choice, calls: usize, concurrent: usize) -> BTreeMap<String, usize> {
    fastrand::seed(7);
    let mut counts = BTreeMap::new();
    let mut held = VecDeque::new();
    for _ in 0..calls {
        if held.len() == concurrent {
            // Calls end in no particular order.
            let ended = fastrand::usize(..held.len());
            held.swap_remove_back(ended);
        }
        let picked = choice.pick(None, &[]).unwrap();
        *counts.entry(picked.endpoint.record.address.to_string()).or_default() += 1;
        held.extend(picked.hold(0));
    }
    counts
}

#[test]
fn every_balancer_gives_each_endpoint_its_weight_of_the_calls() {
    for balance in ALL {
        for concurrent in [1, 2, 4, 10, 50] {
            let counts = counts(&of(&[1, 2, 3], "", balance), 6_000, concurrent);
            let shares: Vec<_> = counts.values().map(|count| *count as f64 / 6_000.0).collect();
            for (share, weight) in shares.iter().zip([1.0, 2.0, 3.0]) {
                let wanted = weight / 6.0;
                // Counting calls in flight by chance, peak_ewma strays further while they are few.
                let close = if balance == Balance::PeakEwma { 0.16 } else { 0.05 };
                assert!(
                    (share / wanted - 1.0).abs() < close,
                    "{balance:?}, {concurrent} at once: {shares:?}"
                );
            }
        }
    }
}

#[test]
fn round_robin_spreads_turns_evenly() {
    let choice = of(&[5, 1, 1], "", Balance::RoundRobin);
    let picks: Vec<_> = (0..700).map(|at| first(&choice, at).record.weight).collect();
    let longest = picks.split(|weight| *weight != 5).map(<[_]>::len).max();
    assert!(longest <= Some(5), "runs of at most five: {longest:?}");
    assert!(
        picks.chunks(7).all(|turn| (4..=6).contains(&turn.iter().filter(|w| **w == 5).count()))
    );
}

#[test]
fn p2c_turns_away_from_an_endpoint_that_holds_many_calls() {
    let choice = of(&[1, 1, 1], "", Balance::P2c);
    let busy = Arc::clone(first(&choice, 0));
    let _held: Vec<_> = (0..100).map(|_| busy.load.pick()).collect();
    for at in 0..1_000 {
        assert_ne!(first(&choice, at).record.address, busy.record.address);
    }
}

#[test]
fn a_call_never_gets_an_endpoint_that_it_has_tried() {
    for balance in ALL {
        let choice = of(&[1, 2, 3, 4], "", balance);
        for key in (0..500).map(|at| (at % 2 == 0).then_some(at << 50)) {
            let mut tried = Vec::new();
            while let Ok(picked) = choice.pick(key, &tried) {
                let endpoint = Arc::clone(picked.endpoint);
                assert!(!tried.iter().any(|tried| Arc::ptr_eq(tried, &endpoint)));
                tried.push(endpoint);
            }
            assert_eq!(tried.len(), 4);
            assert_eq!(choice.pick(key, &tried).unwrap_err(), PickError::AllTried);
        }
    }
}

#[test]
fn a_further_attempt_is_drawn_among_the_others_by_weight() {
    for balance in ALL {
        let choice = of(&[4, 1, 2, 3], "", balance);
        fastrand::seed(1);
        let out = Arc::clone(&choice.rules[0].members.endpoints()[0]);
        let mut counts = [0; 4];
        for _ in 0..6_000 {
            let picked = choice.pick(None, &[Arc::clone(&out)]).unwrap();
            counts[choice.rules[0].members.positions(&[Arc::clone(picked.endpoint)])[0]] += 1;
        }
        // Of two that were drawn without regard to weights that are left, p2c takes the first one.
        assert!(fits(&counts, &[0.0, 1.0, 2.0, 3.0]), "{balance:?}: {counts:?}");
    }
}

#[test]
fn an_endpoint_that_never_connects_is_tried_first_by_its_share_of_the_calls_only() {
    for balance in [Balance::WeightedRandom, Balance::RoundRobin, Balance::P2c] {
        let choice = of(&[1, 2, 3], "", balance);
        let dead = |endpoint: &Arc<Endpoint>| endpoint.record.weight == 3;
        let mut first_on_dead = 0;
        for at in 0..600 {
            let first = first(&choice, at);
            if dead(first) {
                first_on_dead += 1;
                let second = choice.pick(None, &[Arc::clone(first)]).unwrap();
                assert!(!dead(second.endpoint));
            }
        }
        assert!((290..=310).contains(&first_on_dead), "{balance:?}: {first_on_dead} of 600");
    }
}

#[test]
fn endpoints_that_cannot_take_a_call_are_passed_over_until_none_can() {
    for balance in ALL {
        let choice = of(&[1; 40], "version=v1;version=v0;", balance);
        let has_room = |endpoint: &Endpoint| endpoint.load.has_room(1);
        let mut held = Vec::new();
        for key in 0..40 {
            let picked = choice.pick_where(Some(key % 3), &[], has_room).unwrap();
            held.push(picked.hold(1).expect("it has room"));
        }
        assert_eq!(choice.pick_where(Some(1), &[], has_room).unwrap_err(), PickError::Full);
        held.remove(17);
        let freed = choice.pick_where(Some(1), &[], has_room).unwrap();
        assert_eq!(freed.endpoint.load.in_flight(), 0);
        let tried = [Arc::clone(freed.endpoint)];
        assert_eq!(choice.pick_where(Some(1), &tried, has_room).unwrap_err(), PickError::Full);
    }
}

#[test]
fn the_first_rule_with_an_untried_endpoint_decides() {
    for balance in ALL {
        let choice = of(&[1, 1, 1, 1], "version=v9;version=v2;version=v1", balance);
        let mut tried = Vec::new();
        while let Ok(picked) = choice.pick(Some(7), &tried) {
            tried.push(Arc::clone(picked.endpoint));
        }
        let versions: Vec<_> = tried.iter().map(|endpoint| &*endpoint.record.version).collect();
        assert_eq!(versions, ["v2", "v2", "v1", "v1"]);
    }
}

#[test]
fn nothing_known_and_nothing_matching_are_told_apart() {
    let error = |weights: &[u32], selectors| {
        of(weights, selectors, Balance::P2c).pick(None, &[]).unwrap_err()
    };
    assert_eq!(error(&[], ""), PickError::NoEndpoints);
    assert_eq!(error(&[1], "version=v9"), PickError::NoMatch);
}

/// A service with these endpoints, and what its calls choose from.
fn service(fixture: Fixture, policy: &Policy) -> (Service, Choice) {
    let snapshot = fixture.snapshot();
    let choice = choice(&snapshot, "", policy);
    (Service::new(snapshot), choice)
}

#[test]
fn an_endpoint_that_is_not_usable_gets_nothing_and_the_others_its_share_by_weight() {
    for balance in ALL {
        let (service, choice) = service(Fixture::weights(&[3, 1, 2, 3]), &by(balance));
        let endpoints = service.snapshot().endpoints.clone();
        let count = || {
            choice.keep_up(service.changes(), Instant::now);
            let counts = counts(&choice, 6_000, 1);
            let count = |e: &Arc<Endpoint>| counts.get(e.record.address.as_str()).copied();
            endpoints.iter().map(|e| count(e).unwrap_or(0)).collect::<Vec<_>>()
        };
        assert!(fits(&count(), &[3.0, 1.0, 2.0, 3.0]), "{balance:?}");
        set_usable(&service, &endpoints[0], false);
        assert!(fits(&count(), &[0.0, 1.0, 2.0, 3.0]), "{balance:?}");
        set_usable(&service, &endpoints[3], false);
        assert!(fits(&count(), &[0.0, 1.0, 2.0, 0.0]), "{balance:?}");
        set_usable(&service, &endpoints[0], true);
        assert!(fits(&count(), &[3.0, 1.0, 2.0, 0.0]), "{balance:?}");
        // Not even for a further attempt.
        let usable = |at: usize| Arc::clone(&endpoints[at]);
        let error = choice.pick(None, &[usable(0), usable(1), usable(2)]).unwrap_err();
        assert_eq!(error, PickError::AllTried);
    }
}

#[test]
fn where_no_endpoint_is_usable_all_are_used() {
    for balance in ALL {
        let (service, choice) = service(Fixture::new(3), &by(balance));
        for endpoint in &service.snapshot().endpoints {
            set_usable(&service, endpoint, false);
        }
        choice.keep_up(service.changes(), Instant::now);
        assert!(fits(&counts(&choice, 3_000, 1).into_values().collect::<Vec<_>>(), &[1.0; 3]));
    }
}

#[test]
fn a_rule_without_a_usable_endpoint_leaves_the_call_to_the_next() {
    for balance in ALL {
        let snapshot = Fixture::new(4).snapshot();
        let choice = choice(&snapshot, "version=v1;version=v2", &by(balance));
        let service = Service::new(snapshot);
        for endpoint in service.snapshot().endpoints.iter().step_by(2) {
            set_usable(&service, endpoint, false);
        }
        choice.keep_up(service.changes(), Instant::now);
        assert!((0..100).all(|at| first(&choice, at).record.version == "v2"));
    }
}

#[test]
fn a_turn_is_not_lost_when_other_endpoints_come_and_go() {
    let (service, choice) = service(Fixture::weights(&[1, 1, 2]), &by(Balance::RoundRobin));
    let endpoints = service.snapshot().endpoints.clone();
    let mut counts = [0; 2];
    for at in 0..400 {
        set_usable(&service, &endpoints[0], at % 2 == 0);
        choice.keep_up(service.changes(), Instant::now);
        let picked = first(&choice, at);
        (1..3).for_each(|at| counts[at - 1] += usize::from(Arc::ptr_eq(picked, &endpoints[at])));
    }
    assert!((counts[1] as f64 / counts[0] as f64 - 2.0).abs() < 0.2, "{counts:?}");
}

#[test]
fn a_zone_that_is_preferred_gets_all_and_a_further_attempt_reaches_the_others() {
    let policy = Policy { zone_preference: ZonePreference::Prefer, ..Policy::default() };
    for balance in ALL {
        let fixture = Fixture::new(6).zone(|at| ["a", "b"][at % 2]);
        let (_, choice) = service(fixture, &Policy { balance, ..policy.clone() });
        let mut tried = Vec::new();
        while let Ok(picked) = choice.pick(Some(7), &tried) {
            tried.push(Arc::clone(picked.endpoint));
        }
        let zones: Vec<_> = tried.iter().map(|endpoint| &*endpoint.record.zone).collect();
        assert_eq!(zones, ["a", "a", "a", "b", "b", "b"], "{balance:?}");
    }
}

#[test]
fn priority_and_zone_and_subset_and_weight_act_together() {
    // Priority 0 has two thirds of its weight usable, so carries 93 %; of that, zone a has half.
    let policy =
        Policy { zone_preference: ZonePreference::Prefer, subset: 30, ..Policy::default() };
    for balance in ALL {
        let fixture = Fixture::new(120).zone(|at| ["a", "b"][at % 2]).priority(|at| at as u32 / 60);
        let (service, choice) = service(fixture, &Policy { balance, ..policy.clone() });
        let endpoints = service.snapshot().endpoints.clone();
        endpoints[..20].iter().for_each(|endpoint| set_usable(&service, endpoint, false));
        choice.keep_up(service.changes(), Instant::now);
        let counts = counts(&choice, 30_000, 1);
        let (mut first, mut second, mut elsewhere) = (0, 0, 0);
        for endpoint in &endpoints {
            let count = counts.get(endpoint.record.address.as_str()).copied().unwrap_or(0);
            match (endpoint.record.metadata["priority"].as_str(), &*endpoint.record.zone) {
                ("0", "a") => first += count,
                ("1", "a") => second += count,
                _ => elsewhere += count,
            }
        }
        assert_eq!((elsewhere, counts.len()), (0, 30), "{balance:?}");
        assert!(fits(&[first, second], &[1.4 * 2.0 / 3.0, 1.0 - 1.4 * 2.0 / 3.0]), "{balance:?}");
    }
}

#[test]
fn a_new_endpoint_grows_into_its_weight() {
    let (window, start) = (Duration::from_secs(100), Instant::now() + Duration::from_secs(1000));
    for balance in ALL {
        let policy = Policy { balance, slow_start: window, ..Policy::default() };
        let snapshot = Fixture::new(4).joined(0, Duration::ZERO, start).snapshot();
        let choice = choice(&snapshot, "", &policy);
        for (age, part) in [(0, 0.1), (5, 0.1), (25, 0.25), (60, 0.6), (100, 1.0), (1000, 1.0)] {
            choice.keep_up(0, || start + Duration::from_secs(age));
            let mut counts = [0; 4];
            for at in 0..20_000 {
                let picked = first(&choice, at);
                let at = snapshot.endpoints.iter().position(|e| Arc::ptr_eq(e, picked));
                counts[at.unwrap()] += 1;
            }
            let share = counts[0] as f64 / 20_000.0;
            // Keys that it does not take yet stay where they were.
            let by_key = balance.is_by_key();
            let expected = if by_key { part / 4.0 } else { part / (3.0 + part) };
            assert!((share / expected - 1.0).abs() < 0.2, "{balance:?} at {age}: {share}");
        }
        assert_eq!(choice.due.get(), None, "nothing is left to look at");
    }
}

#[test]
fn endpoints_of_the_first_list_are_not_new() {
    let policy = Policy { slow_start: Duration::from_secs(100), ..Policy::default() };
    let choice = choice(&Fixture::new(4).snapshot(), "", &policy);
    assert_eq!(choice.due.get(), None);
}

#[test]
fn a_further_attempt_goes_to_a_registered_endpoint_before_any_suspect() {
    for balance in ALL {
        let snapshot = Fixture::weights(&[1, 2, 3, 4, 5]).snapshot();
        for suspect in &snapshot.endpoints[1..] {
            suspect.load.suspect();
            suspect.load.vouch();
        }
        let choice = choice(&snapshot, "", &by(balance));
        let registered = &snapshot.endpoints[0];
        let mut first_on_suspects = 0;
        for at in 0..100 {
            let first = first(&choice, at);
            if Arc::ptr_eq(first, registered) {
                continue;
            }
            first_on_suspects += 1;
            let tried = [Arc::clone(first)];
            let second = choice.pick(Some(at as u64), &tried).unwrap();
            assert!(Arc::ptr_eq(second.endpoint, registered));
            let tried = [Arc::clone(first), Arc::clone(registered)];
            assert!(choice.pick(None, &tried).is_ok(), "then another suspect");
        }
        assert!(first_on_suspects > 50, "{balance:?}: {first_on_suspects}");
    }
}

#[test]
fn suspects_are_picked_once_they_have_answered_or_where_nothing_else_is_left() {
    let snapshot = Fixture::new(3).snapshot();
    let picked = || counts(&choice(&snapshot, "", &Policy::default()), 30, 1).len();
    snapshot.endpoints[..2].iter().for_each(|endpoint| endpoint.load.suspect());
    assert_eq!(picked(), 1);
    snapshot.endpoints[0].load.vouch();
    assert_eq!(picked(), 2);
    snapshot.endpoints.iter().for_each(|endpoint| endpoint.load.suspect());
    assert_eq!(picked(), 3);
    snapshot.endpoints[0].load.trust();
    assert_eq!(picked(), 1);
}
