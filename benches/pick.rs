//! What a pick costs, and what a choice costs to make ready: `cargo bench --profile quick --bench pick`.
//!
//! A pick is measured as a call meets it: the choice is looked up, an endpoint picked and held.

#![allow(missing_docs, reason = "criterion makes public functions of its own")]

use std::{hint::black_box, sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pillion::{
    balance::{Choice, Plan, Tables},
    config::{Balance, Node, Policy, Settings, ZonePreference},
    live::Live,
    metrics::Metrics,
    model::{Endpoint, Record, Selectors, Service, Snapshot, stable_hash},
    tls::Keeper,
    view::Views,
    wards::Warden,
};

const BALANCERS: [Balance; 6] = [
    Balance::WeightedRandom,
    Balance::RoundRobin,
    Balance::P2c,
    Balance::PeakEwma,
    Balance::RingHash,
    Balance::Maglev,
];

const SIZES: [usize; 3] = [10, 1_000, 100_000];

/// Endpoints in three zones and of two versions, of equal or three different weights.
fn snapshot(size: usize, weights: bool) -> Snapshot {
    let mut snapshot = Snapshot::empty("orders".parse().expect("a service name"));
    for at in 0..size {
        let address = format!("10.{}.{}.{}:80", at >> 16, at >> 8 & 255, at & 255);
        let mut record = Record::new(address.parse().expect("an address"), "bench");
        record.version = format!("v{}", at % 2);
        record.zone = ["a", "b", "c"][at % 3].to_owned();
        if weights {
            record.weight = 50 + (at as u32 % 3) * 50;
        }
        let (source, key) = ("main".into(), record.address.as_str().into());
        let (load, networks) = Default::default();
        let endpoint = Endpoint { record: record.into(), source, key, load, networks };
        snapshot.endpoints.push(Arc::new(endpoint));
    }
    snapshot.endpoints.sort_by(|a, b| a.record.address.as_str().cmp(b.record.address.as_str()));
    snapshot
}

fn policy(balance: Balance) -> Policy {
    Policy { balance, ..Policy::default() }
}

fn picks(c: &mut Criterion) {
    for balance in BALANCERS {
        for (case, filter, weights) in
            [("all", "", false), ("weights", "", true), ("filtered", "version=v1", false)]
        {
            let name = format!("{}/{case}", balance.as_str());
            let mut group = c.benchmark_group(name);
            for size in SIZES {
                let snapshot = snapshot(size, weights);
                let selectors: Selectors = filter.parse().expect("a selector");
                let mut pick = picker(snapshot, selectors, policy(balance));
                group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut pick));
            }
        }
    }
}

/// Every stage at once, each of which narrows or weighs anew what the one before it left.
fn stages(c: &mut Criterion) {
    let mut group = c.benchmark_group("p2c/zone, subset, unusable");
    for size in SIZES {
        let policy =
            Policy { zone_preference: ZonePreference::Prefer, subset: 20, ..policy(Balance::P2c) };
        let mut pick = picker(snapshot(size, true), Selectors::default(), policy);
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut pick));
    }
}

/// Picks from a service that a worker knows, once for each time that it is called.
fn picker(snapshot: Snapshot, selectors: Selectors, policy: Policy) -> impl FnMut() {
    let service = Arc::new(Service::new(snapshot));
    let node = Node { zone: "a".to_owned(), ..Node::default() };
    let live = Arc::new(Live::new(Arc::new(Settings { node, ..Settings::default() })));
    let metrics = Metrics::new();
    let warden = Warden::new(
        Arc::clone(&live),
        Keeper::new(metrics.tls().clone()).clients(),
        metrics.clone(),
    );
    let views = Views::new(&metrics, live, Tables::default(), warden.reports());
    let view = views.add(Arc::clone(&service));
    let policy = Arc::new(policy);
    if policy.subset > 0 {
        let unhealthy =
            |e: &Arc<Endpoint>| service.set_unhealthy(e, Some(String::new()), Instant::now());
        service.snapshot().endpoints.iter().step_by(7).for_each(unhealthy);
    }
    let mut number = 0_u64;
    let mut pick = move || {
        number += 1;
        let key = policy.balance.is_by_key().then(|| stable_hash(&number.to_le_bytes()));
        let choice = view.choice(&selectors, &policy);
        let picked = choice.pick(key, black_box(&[])).expect("an endpoint");
        drop(black_box(picked.hold(0)));
    };
    pick();
    pick
}

/// What the first pick after a change of the service costs, on each worker.
fn changes(c: &mut Criterion) {
    for balance in BALANCERS {
        let mut group = c.benchmark_group(format!("{}/new snapshot", balance.as_str()));
        group.sample_size(10);
        for size in SIZES {
            let snapshot = snapshot(size, true);
            let (plan, selectors) =
                (Plan::new(&policy(balance), &Node::default()), Selectors::default());
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    let choice = Choice::new(
                        &snapshot,
                        &selectors,
                        &plan,
                        &Tables::default(),
                        Instant::now(),
                    );
                    choice
                        .pick(Some(7), &[])
                        .map(|picked| drop(picked.hold(0)))
                        .expect("an endpoint");
                    choice
                });
            });
        }
    }
    let mut group = c.benchmark_group("p2c/one more unusable");
    group.sample_size(10);
    for size in SIZES {
        let service = Service::new(snapshot(size, true));
        let plan = Plan::new(&policy(Balance::P2c), &Node::default());
        let choice = Choice::new(
            &service.snapshot(),
            &Selectors::default(),
            &plan,
            &Tables::default(),
            Instant::now(),
        );
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                at += 1;
                let why = (at % 2 == 1).then(String::new);
                service.set_unhealthy(
                    &service.snapshot().endpoints[at / 2 % size],
                    why,
                    Instant::now(),
                );
                choice.keep_up(service.changes(), Instant::now);
            });
        });
    }
}

criterion_group!(benches, picks, stages, changes);
criterion_main!(benches);
