//! An etcd that is away, stands still, or says nothing.

use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::Client;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::{Pillion, Program};
use crate::relay::Relay;
use crate::scene::{age, backends, key, proxy, register, source, until_ready};
use crate::wait::{SOON, until};

async fn up(pillion: &Pillion) -> bool {
    pillion.metrics().await.sum("source_up", &[]) == 1.0
}

/// A new endpoint is called: etcd is followed again.
async fn until_joined(etcd: &Etcd) -> Backend {
    let backend = Backend::echo().await;
    register(etcd, backend.address()).await;
    until("the new endpoint is called", async || backend.counts().calls > 0).await;
    backend
}

async fn crash(away: Duration) {
    let mut etcd = Etcd::start().await;
    let _backends = backends(&etcd, 3).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    etcd.kill();
    until("the loss shows", async || !up(&pillion).await).await;
    tokio::time::sleep(away).await;
    assert!(age(&pillion).await >= away.as_secs_f64());
    etcd.restart().await;
    let _another = until_joined(&etcd).await;
    until("it is proved again", async || age(&pillion).await < 6.0).await;
    assert!(up(&pillion).await);
    let lists = pillion.metrics().await.sum("source_resyncs_total", &[]);
    assert_eq!(lists, 0.0, "the watch was resumed where it stopped");
    until_ready(&pillion, 4).await;
    flow.end().await;
}

#[tokio::test]
async fn a_crash_of_etcd_costs_no_call_and_no_list() {
    crash(Duration::from_secs(1)).await;
}

#[tokio::test]
#[ignore = "10 s; `make test-long`"]
async fn a_longer_crash_of_etcd_costs_no_more() {
    crash(Duration::from_secs(10)).await;
}

async fn freeze(still: Duration) {
    let etcd = Etcd::start().await;
    let _backends = backends(&etcd, 2).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    etcd.freeze();
    let frozen = Instant::now();
    until("the silence shows", async || !up(&pillion).await).await;
    assert!(frozen.elapsed() < Duration::from_secs(16), "{:?}", frozen.elapsed());
    let troubles = pillion.metrics().await;
    let of = |cause| troubles.sum("source_troubles_total", &[("cause", cause)]);
    assert!(of("silence") + of("stream") >= 1.0);
    tokio::time::sleep(still.saturating_sub(frozen.elapsed())).await;
    assert!(age(&pillion).await >= frozen.elapsed().as_secs_f64() - 1.0);
    etcd.thaw();
    let _another = until_joined(&etcd).await;
    until("it is proved again", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed_costs_no_call_and_is_followed_again() {
    freeze(Duration::ZERO).await;
}

#[tokio::test]
#[ignore = "a minute; `make test-long`"]
async fn an_etcd_that_is_frozen_for_a_minute_costs_no_call() {
    freeze(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn without_etcd_at_the_start_calls_fail_fast_until_it_is_there() {
    let mut etcd = Etcd::stopped();
    // Who waited as long as for a connection would wait for longer than this test does.
    let config = source(&etcd.url(), "") + "[defaults]\nconnect_timeout = \"5m\"\n";
    let pillion = Program::new(&config).start_unready().await;
    until("the failure is known", async || {
        pillion.get("/ready").await.text.contains("Connection refused")
    })
    .await;
    assert_eq!(pillion.get("/ready").await.status, 503);
    let client = Client::connect(pillion.address()).await;
    let answer = client.call("orders").await;
    assert_eq!(answer.header("pillion-error"), Some("registry_unavailable"));
    etcd.restart().await;
    let backend = Backend::echo().await;
    register(&etcd, backend.address()).await;
    let there = Instant::now();
    until("it is ready", async || pillion.get("/ready").await.status == 200).await;
    assert!(there.elapsed() < Duration::from_secs(12), "{:?}", there.elapsed());
    until("the endpoint is known", async || client.call("orders").await.is_ok()).await;
    assert!(there.elapsed() < Duration::from_secs(15), "{:?}", there.elapsed());
}

#[tokio::test]
async fn an_endpoint_whose_end_nobody_told_is_looked_up_when_it_cannot_be_connected() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let mut backends = backends(&etcd, 3).await;
    let pillion = proxy(&relay.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 3).await;
    // A put that is seen shows that the watch is there to be silenced.
    backends.push(until_joined(&etcd).await);
    relay.mute();
    etcd.delete(&key(backends[0].address())).await;
    backends[0].close().await;
    let ended = Instant::now();
    until_ready(&pillion, 3).await;
    assert!(ended.elapsed() < Duration::from_secs(15), "before the watch itself is given up");
    pillion.until_logged("asking the sources again").await;
    flow.end().await;
}

#[tokio::test]
#[ignore = "half a minute; `make test-long`"]
async fn a_watch_that_says_nothing_is_given_up_after_20_seconds() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let _backends = backends(&etcd, 2).await;
    let pillion = proxy(&relay.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let _third = until_joined(&etcd).await;
    relay.mute();
    let unseen = Backend::echo().await;
    register(&etcd, unseen.address()).await;
    tokio::time::sleep(SOON).await;
    assert!(age(&pillion).await > 10.0, "{}", age(&pillion).await);
    relay.mend();
    until("the change is seen", async || unseen.counts().calls > 0).await;
    let troubles = pillion.metrics().await;
    assert!(troubles.sum("source_troubles_total", &[("cause", "stall")]) >= 1.0);
    flow.end().await;
}
