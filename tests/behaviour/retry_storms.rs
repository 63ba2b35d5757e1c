//! Several hops that all try again: a leaf that fails gets no more calls than one of them would make.

use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::client::{Answer, Client};
use crate::errors::refusing;
use crate::program::{Pillion, Program, endpoint};
use crate::python::call_with_retries;
use crate::retry_policy::{UNAVAILABLE, failing, most};

const POLICY: &str =
    "[defaults]\nconnection = \"pooled\"\n[defaults.retry]\non = [\"unavailable\"]";

/// A proxy that can be reached at three addresses, in front of these.
async fn hop(policy: &str, next: impl IntoIterator<Item = SocketAddr>) -> Pillion {
    let endpoints = next.into_iter().map(|address| endpoint("echo", address, ""));
    let mut program = Program::new(policy).endpoints(endpoints);
    for _ in 0..3 {
        program = program.listen("127.0.0.1:0");
    }
    program.start().await
}

/// Three proxies in a row, the nearest to the leaf first.
async fn row(leaf: impl IntoIterator<Item = SocketAddr>) -> [Pillion; 3] {
    let last = hop(POLICY, leaf).await;
    let middle = hop(POLICY, last.addresses()).await;
    let first = hop(POLICY, middle.addresses()).await;
    [last, middle, first]
}

async fn leaf() -> [Backend; 3] {
    [
        failing(UNAVAILABLE, &[]).await,
        failing(UNAVAILABLE, &[]).await,
        failing(UNAVAILABLE, &[]).await,
    ]
}

fn calls(leaf: &[Backend]) -> usize {
    leaf.iter().map(|backend| backend.counts().calls).sum()
}

async fn attempts(pillion: &Pillion) -> f64 {
    pillion.metrics().await.sum("attempts_total", &[("service", "echo")])
}

#[tokio::test]
async fn three_proxies_in_a_row_call_a_leaf_that_fails_as_often_as_one() {
    let leaf = leaf().await;
    let [last, middle, first] = row(leaf.each_ref().map(Backend::address)).await;
    let answer = Client::connect(first.address()).await.call("echo").await;
    assert_eq!(answer.grpc_status(), Some(UNAVAILABLE));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), Some("-1"), "nor should the caller");
    assert_eq!(calls(&leaf), 3);
    let attempts = [attempts(&last).await, attempts(&middle).await, attempts(&first).await];
    assert_eq!(attempts, [3.0, 1.0, 1.0]);
}

#[tokio::test]
async fn three_proxies_in_a_row_dial_a_leaf_that_is_down_as_often_as_one() {
    let leaf = [refusing().await, refusing().await, refusing().await];
    let [last, middle, first] = row(leaf).await;
    let answer = Client::connect(first.address()).await.call("echo").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), Some("-1"));
    let attempts = [attempts(&last).await, attempts(&middle).await, attempts(&first).await];
    assert_eq!(attempts, [3.0, 1.0, 1.0]);
}

#[tokio::test]
async fn a_hop_that_cannot_try_again_leaves_it_to_the_one_before() {
    // One endpoint behind each proxy of the last hop: only the hop before has others.
    let leaf = leaf().await;
    let last = [
        hop(POLICY, [leaf[0].address()]).await,
        hop(POLICY, [leaf[1].address()]).await,
        hop(POLICY, [leaf[2].address()]).await,
    ];
    let middle = hop(POLICY, last.each_ref().map(Pillion::address)).await;
    let first = hop(POLICY, middle.addresses()).await;
    let answer = Client::connect(first.address()).await.call("echo").await;
    assert_eq!(answer.grpc_status(), Some(UNAVAILABLE));
    assert_eq!(calls(&leaf), 3);
    assert_eq!((attempts(&middle).await, attempts(&first).await), (3.0, 1.0));
}

#[tokio::test]
async fn an_outage_behind_three_proxies_multiplies_nothing() {
    const CALLS: usize = 300;
    let leaf = leaf().await;
    let [_last, _middle, first] = row(leaf.each_ref().map(Backend::address)).await;
    let client = Client::connect(first.address()).await;
    let began = Instant::now();
    let answers = stream::iter(0..CALLS).map(|_| client.call("echo")).buffer_unordered(8);
    let answers: Vec<Answer> = answers.collect().await;
    assert!(answers.iter().all(|answer| answer.grpc_status() == Some(UNAVAILABLE)));
    let reached = calls(&leaf);
    assert!((CALLS..=most(CALLS, began)).contains(&reached), "{reached} for {CALLS}");
}

#[tokio::test]
async fn a_client_that_tries_again_by_itself_adds_nothing_to_what_the_proxies_did() {
    let leaf = leaf().await;
    // Without a policy here, the client makes its five attempts.
    let pillion = hop("", leaf.each_ref().map(Backend::address)).await;
    assert_eq!(call_with_retries(pillion.address(), "echo").await, i64::from(UNAVAILABLE));
    assert_eq!(calls(&leaf), 5);
    let previous = |backend: &Backend| {
        let heads = backend.last_head().headers;
        heads.get("grpc-previous-rpc-attempts").map(|value| value.to_str().unwrap().to_owned())
    };
    assert!(leaf.iter().any(|backend| previous(backend).as_deref() == Some("4")));
    let [_last, _middle, first] = row(leaf.each_ref().map(Backend::address)).await;
    assert_eq!(call_with_retries(first.address(), "echo").await, i64::from(UNAVAILABLE));
    assert_eq!(calls(&leaf), 5 + 3);
}
