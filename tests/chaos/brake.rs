//! Endpoints that vanish from etcd in numbers.

use std::time::{Duration, Instant};

use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::scene::{backends, endpoints, key, proxy, register, until_ready};
use crate::wait::until;

#[tokio::test]
async fn endpoints_whose_keys_were_deleted_by_mistake_go_on_taking_calls_and_come_back() {
    let etcd = Etcd::start().await;
    let backends = backends(&etcd, 5).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 5).await;
    etcd.delete_prefix("orders/").await;
    until("all are suspects", async || endpoints(&pillion, ["ready", "suspect"]).await == [0, 5])
        .await;
    until("all have been dialled", async || pillion.log().contains("answer=5 silent=0")).await;
    let before: Vec<_> = backends.iter().map(|backend| backend.counts().calls).collect();
    flow.more().await;
    until("each takes calls", async || {
        backends.iter().zip(&before).all(|(backend, before)| backend.counts().calls > *before)
    })
    .await;
    assert_eq!(pillion.metrics().await.sum("source_brakes_total", &[]), 1.0);
    let suspects = pillion.metrics().await.sum("endpoints", &[("state", "suspect")]);
    assert_eq!(suspects, 5.0);
    for backend in &backends {
        register(&etcd, backend.address()).await;
    }
    until_ready(&pillion, 5).await;
    flow.end().await;
}

#[tokio::test]
async fn suspects_are_let_go_when_they_were_kept_long_enough() {
    let etcd = Etcd::start().await;
    let backends = backends(&etcd, 4).await;
    let pillion = proxy(&etcd.url(), "brake_hold = \"3s\"").await;
    let flow = Flow::start(&pillion, "orders").await;
    for backend in &backends[1..] {
        etcd.delete(&key(backend.address())).await;
    }
    let deleted = Instant::now();
    until("three are suspects", async || endpoints(&pillion, ["ready", "suspect"]).await == [1, 3])
        .await;
    until_ready(&pillion, 1).await;
    assert!(deleted.elapsed() > Duration::from_millis(2_900), "{:?}", deleted.elapsed());
    flow.end().await;
}

#[tokio::test]
async fn a_service_that_is_scaled_down_at_once_loses_no_call() {
    let etcd = Etcd::start().await;
    let mut backends = backends(&etcd, 8).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 8).await;
    for backend in &backends[2..] {
        etcd.delete(&key(backend.address())).await;
    }
    // The time that a process leaves for its callers to notice, in which these still answer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    until("six are suspects", async || endpoints(&pillion, ["ready", "suspect"]).await == [2, 6])
        .await;
    for backend in &mut backends[2..] {
        backend.close().await;
    }
    // As quickly as calls find out.
    until_ready(&pillion, 2).await;
    flow.end().await;
}

#[tokio::test]
async fn leases_that_run_out_all_at_once_end_only_who_is_really_gone() {
    let etcd = Etcd::start().await;
    let mut leased = Vec::new();
    for _ in 0..6 {
        let backend = crate::backend::Backend::echo().await;
        let value = crate::scene::value(backend.address());
        etcd.put_leased(&key(backend.address()), &value, 2).await;
        leased.push(backend);
    }
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 6).await;
    // Nobody keeps the leases alive, as if whoever should had stood still; one has really ended.
    leased[0].close().await;
    until("the leases have run out and all have been dialled", async || {
        endpoints(&pillion, ["ready", "suspect"]).await == [0, 5]
            && pillion.log().contains("answer=5 silent=")
    })
    .await;
    flow.more().await;
    flow.end().await;
}

#[tokio::test]
async fn without_a_brake_etcd_is_taken_at_its_word() {
    let etcd = Etcd::start().await;
    let _backends = backends(&etcd, 4).await;
    let pillion = proxy(&etcd.url(), "brake = \"off\"").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 4).await;
    etcd.delete_prefix("orders/").await;
    until("nothing is left", async || endpoints(&pillion, ["ready", "suspect"]).await == [0, 0])
        .await;
    until("calls say so", async || !flow.seen_lost().is_empty()).await;
    let lost = flow.lost().await;
    assert!(
        lost.iter().all(|why| why.contains("no endpoint") || why.contains("no%20endpoint")),
        "{lost:?}"
    );
}
