//! No open files left: who holds them all starves nobody else, and no endpoint is blamed for it.

use std::process::Command;

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::backend::Backend;
use crate::client::{Client, grpc};
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::metrics::Metrics;
use crate::program::{Pillion, Program};
use crate::scene::{backends, register, source, until_ready};
use crate::wait::{soon, until};

/// Starts a program that may have so few files.
const FEW: [&str; 2] = ["prlimit", "--nofile=128"];

fn turned_away(metrics: &Metrics) -> f64 {
    metrics.sum("downstream_limited_total", &[("reason", "open_files")])
}

#[tokio::test]
async fn a_client_that_holds_all_the_connections_it_can_get_starves_nobody() {
    let mut etcd = Etcd::start().await;
    let mut known = backends(&etcd, 2).await;
    let pillion = Program::new(&source(&etcd.url(), "")).by(&FEW).start().await;
    until_ready_by_a_call(&pillion, 2).await;
    let flow = Flow::start(&pillion, "orders").await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(pillion.address()).await.unwrap());
    }
    pillion.until_metrics("some are turned away", |m| turned_away(m) >= 200.0).await;
    // Calls, each of which needs a connection; the watch; a new connection to etcd; a scrape.
    flow.more().await;
    known.extend(backends(&etcd, 1).await);
    until_ready(&pillion, 3).await;
    etcd.kill();
    pillion.until_metrics("etcd is gone", |m| m.sum("source_up", &[]) == 0.0).await;
    etcd.restart().await;
    known.extend(backends(&etcd, 1).await);
    until_ready(&pillion, 4).await;
    flow.more().await;
    let mut last = TcpStream::connect(pillion.address()).await.unwrap();
    let mut told = Vec::new();
    let _ = soon("a close", last.read_to_end(&mut told)).await;
    assert!(told.ends_with(b"too many connections"), "{told:?}");
    drop(held);
    let alone = |m: &Metrics| m.sum("downstream_connections", &[]) == 4.0;
    pillion.until_metrics("only the callers are left", alone).await;
    assert!(Client::connect(pillion.address()).await.call("orders").await.is_ok());
    flow.end().await;
    assert!(pillion.log().matches("reason=\"open_files\"").count() < 20, "{}", pillion.log());
}

/// A first call has the service watched.
async fn until_ready_by_a_call(pillion: &Pillion, count: usize) {
    assert!(Client::connect(pillion.address()).await.call("orders").await.is_ok());
    until_ready(pillion, count).await;
}

#[tokio::test]
async fn calls_that_find_no_file_are_refused_at_once_and_blame_no_endpoint() {
    let etcd = Etcd::start().await;
    let held = Backend::start(|call| call.never()).await;
    let _known = backends(&etcd, 1).await;
    etcd.put(&format!("held/{}", held.address()), &crate::scene::value(held.address())).await;
    let config = source(&etcd.url(), "")
        + "[defaults]\nbalance = \"peak_ewma\"\nconnect_timeout = \"20s\"\n";
    let pillion = Program::new(&config).by(&FEW).start().await;
    until_ready_by_a_call(&pillion, 1).await;
    let flood = Client::connect(pillion.address()).await;
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(flood.begin(grpc("held")).await);
    }
    let refused = |m: &Metrics| m.sum("limited_total", &[("limit", "open_files")]);
    pillion.until_metrics("some find no file", |m| refused(m) > 0.0).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..20 {
        let answer = client.call("orders").await;
        assert_eq!(answer.grpc_status(), Some(8), "{answer:?}");
        assert_eq!(answer.header("pillion-error"), Some("overloaded"));
        assert!(answer.header("grpc-message").unwrap().contains("open file"), "{answer:?}");
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("attempts_total", &[("outcome", "connect_failed")]), 0.0);
    assert_eq!(metrics.sum("ejections_total", &[]), 0.0);
    assert_eq!(metrics.sum("retries_total", &[]), 0.0);
    // The watch goes on.
    let another = Backend::echo().await;
    register(&etcd, another.address()).await;
    until_ready(&pillion, 2).await;
    drop((flood, open));
    until("calls are answered again", async || client.call("orders").await.is_ok()).await;
}

#[tokio::test]
async fn without_any_file_connections_wait_and_are_taken_as_soon_as_there_are_some() {
    let backend = Backend::echo().await;
    let config = "[defaults]\nconnection = \"pooled\"";
    let program = Program::new(config).endpoints([backend.as_endpoint("echo")]);
    let pillion = program.by(&FEW).start().await;
    let before = Client::connect(pillion.address()).await;
    assert!(before.call("echo").await.is_ok());
    limit(&pillion, "8:128");
    let began = Instant::now();
    let waiting = Client::connect(pillion.address()).await;
    let call = waiting.call("echo");
    tokio::pin!(call);
    let failed = "cannot accept connections";
    until("it is logged", async || pillion.log().contains(failed)).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut call).await.is_err());
    assert!(before.call("echo").await.is_ok(), "what is connected goes on");
    let took = began.elapsed();
    limit(&pillion, "128:128");
    assert!(soon("an answer", call).await.is_ok());
    let failures = pillion.metrics().await.sum("accept_failures_total", &[]);
    let most = took.as_secs_f64() / 0.1 + 5.0;
    assert!((1.0..=most).contains(&failures), "{failures} in {took:?}");
    let lines = pillion.log().matches(failed).count();
    assert!(lines as u64 <= 1 + took.as_secs() / 5, "{lines} lines in {took:?}");
}

fn limit(pillion: &Pillion, files: &str) {
    let id = pillion.id().to_string();
    let done = Command::new("prlimit").args(["--pid", &id, &format!("--nofile={files}")]).status();
    assert!(done.unwrap().success());
}
