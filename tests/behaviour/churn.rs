//! Everything at once for a while: endpoints that come, go and say GOAWAY, callers that call, give up
//! and disappear. No call is lost, and nothing is left behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::join_all;
use h2::Reason as Code;

use crate::backend::Backend;
use crate::client::{Client, grpc, grpc_with};
use crate::program::Pillion;
use crate::wait::until;

const SERVICES: [&str; 3] = ["fresh", "warm", "pooled"];

#[tokio::test]
async fn endpoints_and_callers_may_come_and_go_at_any_time() {
    churn(Duration::from_secs(4)).await;
}

#[tokio::test]
#[ignore = "two minutes; `make test-long`"]
async fn endpoints_and_callers_may_come_and_go_for_minutes() {
    churn(Duration::from_secs(100)).await;
}

async fn churn(length: Duration) {
    let mut backends = Vec::new();
    for _ in 0..4 {
        backends.push(Backend::echo().await);
    }
    let services = SERVICES.map(|name| format!("[service.{name}]\nconnection = \"{name}\"\n"));
    // On a busy machine an endpoint that is well takes its time as well.
    let config = format!("[defaults]\nconnect_timeout = \"20s\"\n{}", services.concat());
    let pillion = Pillion::start(&config, endpoints(&backends, 0b1111)).await;
    let files = pillion.open_files();
    let end = Instant::now() + length;
    let callers = (0..12).map(|seed| call_until(end, &pillion, Rng::with_seed(seed)));
    tokio::join!(join_all(callers), disturb_until(end, &pillion, &backends));

    let metrics = pillion.metrics().await;
    assert!(metrics.sum("requests_total", &[("grpc_status", "OK")]) > 100.0);
    pillion.set_endpoints([]).await;
    pillion
        .until_metrics("nothing is left", |metrics| {
            ["requests_in_flight", "downstream_connections", "upstream_connections"]
                .iter()
                .all(|gauge| metrics.sum(gauge, &[]) == 0.0)
        })
        .await;
    for backend in &backends {
        backend.until("its connections are closed", |counts| counts.open == 0).await;
    }
    until("its files are closed", async || pillion.open_files() <= files + 1).await;
}

/// Those of the endpoints whose bit is set, in every service.
fn endpoints(backends: &[Backend], set: u8) -> Vec<String> {
    let chosen = backends.iter().enumerate().filter(|(at, _)| set & 1 << at != 0);
    let chosen: Vec<_> = chosen.map(|(_, backend)| backend).collect();
    SERVICES
        .iter()
        .flat_map(|service| chosen.iter().map(|backend| backend.as_endpoint(service)))
        .collect()
}

async fn disturb_until(end: Instant, pillion: &Pillion, backends: &[Backend]) {
    let mut random = Rng::with_seed(7);
    let mut set = 0b1111;
    while Instant::now() < end {
        if random.u8(..3) == 0 {
            // Another than before, and never none.
            set = (set + random.u8(..14)) % 15 + 1;
            pillion.set_endpoints(endpoints(backends, set)).await;
        } else {
            random.choice(backends).unwrap().go_away();
        }
        tokio::time::sleep(Duration::from_millis(random.u64(5..100))).await;
    }
}

async fn call_until(end: Instant, pillion: &Pillion, mut random: Rng) {
    let mut client = Client::connect(pillion.address()).await;
    while Instant::now() < end {
        let service = *random.choice(&SERVICES).unwrap();
        match random.u8(..10) {
            0 => client = Client::connect(pillion.address()).await,
            1 => {
                // Given up at once, half sent, or with its connection.
                let mut call = client.begin(grpc(service)).await;
                let _ = call.body.send_data(Bytes::from(vec![7; random.usize(1..50_000)]), false);
                tokio::time::sleep(Duration::from_millis(random.u64(..5))).await;
                if random.bool() {
                    call.body.send_reset(Code::CANCEL);
                } else {
                    client = Client::connect(pillion.address()).await;
                }
            }
            2 => {
                let hurried = grpc_with(service, &[("grpc-timeout", "1m")]);
                let answer = client.send(hurried, b"body").await.unwrap();
                assert!(matches!(answer.grpc_status(), Some(0 | 4)), "{service}: {answer:?}");
            }
            _ => {
                let body = vec![7; random.usize(1..40_000)];
                let answer = client.send(grpc(service), &body).await.unwrap();
                assert!(answer.is_ok() && answer.body == body, "{service}: {:?}", answer.head);
            }
        }
    }
}
