//! Connections to endpoints: fresh, warm, pooled.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::server;

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, grpc, grpc_with};
use crate::metrics::Metrics;
use crate::program::{Pillion, endpoint};
use crate::raw::{HEADERS, serve};
use crate::wait::soon;

async fn proxy_to(backend: &Backend, connection: &str) -> Pillion {
    let config = format!("[defaults]\nconnection = \"{connection}\"");
    Pillion::start(&config, [backend.as_endpoint("echo")]).await
}

/// As many calls, each after the other.
async fn calls(pillion: &Pillion, count: usize) {
    let client = Client::connect(pillion.address()).await;
    for _ in 0..count {
        assert!(client.call("echo").await.is_ok());
    }
}

#[tokio::test]
async fn fresh_opens_one_connection_for_each_attempt_and_closes_it_with_the_call() {
    let refusing = Backend::start(|call: Incoming| async {
        call.reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let backend = Backend::echo().await;
    let config =
        "[defaults]\nconnection = \"fresh\"\nfilter = \"version=first;\"\neject.max_share = 0.0";
    let endpoints =
        [refusing.as_endpoint_with("echo", "version = \"first\""), backend.as_endpoint("echo")];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..10 {
        let answers = join_all((0..20).map(|_| client.call("echo"))).await;
        assert!(answers.iter().all(Answer::is_ok));
    }
    for backend in [&refusing, &backend] {
        let counts = backend.until("all connections are closed", |counts| counts.open == 0).await;
        assert_eq!((counts.accepted, counts.calls), (200, 200));
    }
    let echo = [("service", "echo")];
    // The endpoint may know before the proxy does.
    let closed = |metrics: &Metrics| metrics.sum("upstream_connections", &echo) == 0.0;
    pillion.until_metrics("all connections are closed", closed).await;
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("attempts_total", &echo), 400.0);
    assert_eq!(metrics.sum("upstream_connections_opened_total", &echo), 400.0);
    assert_eq!(metrics.sum("connect_duration_seconds_count", &echo), 400.0);
}

#[tokio::test]
async fn warm_hands_out_each_connection_once_and_connects_ahead() {
    let (called, not_called) = (Backend::echo().await, Backend::echo().await);
    let config = "[defaults]\nconnection = \"warm\"\nfilter = \"version=v1\"";
    let endpoints = [
        called.as_endpoint_with("echo", "version = \"v1\""),
        not_called.as_endpoint_with("echo", "version = \"v2\""),
    ];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for at in 0..200 {
        assert!(client.call("echo").await.is_ok());
        called.until("one is there for the next call", |counts| counts.accepted > at + 1).await;
    }
    let counts = called.counts();
    assert_eq!((counts.calls, counts.most_on_one), (200, 1));
    assert!(counts.accepted <= 200 + 64, "{counts:?}");
    assert_eq!(not_called.counts().accepted, 0);
    // Asked at the end only: an endpoint has accepted a connection before the proxy knows that it is open.
    called.until("connections that nobody came for are closed", |counts| counts.open == 0).await;
    let opened = pillion.metrics().await.sum("upstream_connections_opened_total", &[]);
    assert_eq!(opened, called.counts().accepted as f64);
}

#[tokio::test]
async fn warm_replaces_a_connection_that_its_endpoint_has_closed() {
    let backend = Backend::echo().await;
    let pillion = proxy_to(&backend, "warm").await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..20 {
        assert!(client.call("echo").await.is_ok());
        backend.until("one is ready", |counts| counts.open > 0).await;
        backend.go_away();
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("attempts_total", &[("outcome", "reset")]), 0.0);
}

#[tokio::test]
async fn pooled_sends_all_calls_of_a_worker_on_one_connection() {
    let backend = Backend::echo().await;
    let pillion = proxy_to(&backend, "pooled").await;
    calls(&pillion, 100).await;
    let client = Client::connect(pillion.address()).await;
    let answers = join_all((0..100).map(|_| client.call("echo"))).await;
    assert!(answers.iter().all(Answer::is_ok));
    let counts = backend.counts();
    // Two workers, one connection each at most.
    assert!(counts.accepted <= 2, "{counts:?}");
    assert_eq!(counts.calls, 200);
    let open = pillion.metrics().await.sum("upstream_connections", &[("service", "echo")]);
    assert_eq!(open, counts.open as f64);
}

#[tokio::test]
async fn pooled_opens_no_more_streams_on_a_connection_than_its_endpoint_allows() {
    let backend =
        Backend::start_with(server::Builder::new().max_concurrent_streams(5), Incoming::echo).await;
    let pillion = proxy_to(&backend, "pooled").await;
    let client = Client::connect(pillion.address()).await;
    calls(&pillion, 1).await;
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(client.begin(grpc("echo")).await);
    }
    let counts = backend.until("all have come", |counts| counts.calls == 51).await;
    assert!((10..=12).contains(&counts.accepted), "{counts:?}");
    for call in &mut open {
        call.body.send_data(Bytes::from_static(b"end"), true).unwrap();
    }
    for call in open {
        assert!(soon("an answer", Answer::read(call.answer)).await.unwrap().is_ok());
    }
    // What has fallen free is used again.
    calls(&pillion, 50).await;
    assert_eq!(backend.counts().accepted, counts.accepted);
    let refused = pillion.metrics().await.sum("attempts_total", &[("outcome", "refused")]);
    assert_eq!(refused, 0.0);
}

#[tokio::test]
async fn pooled_connections_are_closed_after_their_last_call_when_their_endpoint_leaves() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        call.read().await.unwrap();
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let pillion = proxy_to(&backend, "pooled").await;
    let client = Client::connect(pillion.address()).await;
    let mut open = client.begin(grpc("echo")).await;
    let answer = soon("the head", open.answer).await.unwrap();
    pillion.set_endpoints([]).await;
    assert_eq!(client.call("echo").await.header("pillion-error"), Some("no_endpoints"));
    // Longer than it takes to look over the pool.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(backend.counts().open, 1, "its call is not over");
    open.body.send_data(Bytes::new(), true).unwrap();
    let mut body = answer.into_body();
    assert!(soon("the end", body.data()).await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    backend.until("the connection is closed", |counts| counts.open == 0).await;
}

#[tokio::test]
async fn a_shared_connection_whose_peer_has_fallen_silent_is_replaced() {
    // Answers the first call of a connection, and from then on nothing, not even a PING.
    let address = serve(|mut wire| async move {
        let Some(head) = wire.until(&[HEADERS]).await else { return };
        let answer = [(":status", "200"), ("grpc-status", "0")];
        wire.send(&[crate::raw::Frame::headers(1, head.stream, &answer)]).await;
        std::future::pending::<()>().await;
    })
    .await;
    let config = "[defaults]\nconnection = \"pooled\"";
    let pillion = Pillion::start(config, [endpoint("echo", address, "")]).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    let late = client.send(grpc_with("echo", &[("grpc-timeout", "100m")]), b"").await.unwrap();
    assert_eq!(late.grpc_status(), Some(4));
    let opened = |metrics: &Metrics| metrics.sum("upstream_connections", &[]);
    pillion.until_metrics("the silent connection is closed", |m| opened(m) == 0.0).await;
    assert!(client.call("echo").await.is_ok());
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_up_no_other_on_a_shared_connection() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let is_large = call.head.headers.contains_key("large");
        let mut down = call.begin();
        if is_large {
            let _ = crate::backend::send_all(&mut down, Bytes::from(vec![7; 64 << 20])).await;
        }
        let _ = down.send_trailers(trailers(0));
    })
    .await;
    let pillion = proxy_to(&backend, "pooled").await;
    // Two workers: every second connection is served by that of the first.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(pillion.address()).await);
    }
    let mut unread = Vec::new();
    for _ in 0..30 {
        let call = clients[0].begin(grpc_with("echo", &[("large", "1")])).await;
        unread.push(soon("the head", call.answer).await.unwrap());
    }
    for client in &clients[1..] {
        for _ in 0..10 {
            assert!(client.call("echo").await.is_ok());
        }
    }
}
