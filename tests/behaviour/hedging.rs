//! A second attempt beside the first, where that is slow.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, grpc, grpc_with, message};
use crate::program::{Pillion, endpoint};
use crate::retry_policy::{UNAVAILABLE, failing, silent, trailers_only};
use crate::wait::soon;

/// Hedges the method that tests call.
const HEDGED: &str = "[defaults.retry]\nhedge_methods = [\"/pillion.test.Echo/Unary\"]\n";

/// `first` is always asked first, then one of `others`.
async fn proxy_to(first: SocketAddr, others: &[&Backend], retry: &str) -> Pillion {
    let config = format!("[defaults]\nfilter = \"version=first;\"\n{HEDGED}{retry}");
    let first = endpoint("echo", first, "version = \"first\"");
    let others = others.iter().map(|backend| backend.as_endpoint("echo"));
    Pillion::start(&config, std::iter::once(first).chain(others)).await
}

async fn call(pillion: &Pillion) -> Answer {
    Client::connect(pillion.address()).await.call("echo").await
}

/// Answers like `echo`, but later.
async fn slow(delay: Duration) -> Backend {
    Backend::start(move |mut call: Incoming| async move {
        call.read().await.unwrap();
        sleep(delay).await;
        call.begin().send_trailers(trailers(0)).unwrap();
    })
    .await
}

/// Answers as `answer` does, `delay` after `other` has the call too.
async fn beside<A, F>(other: &Arc<Backend>, delay: Duration, answer: A) -> Backend
where
    A: Fn(Incoming) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (other, answer) = (Arc::clone(other), Arc::new(answer));
    Backend::start(move |call| {
        let (other, answer) = (Arc::clone(&other), Arc::clone(&answer));
        async move {
            other.until("both have the call", |counts| counts.calls > counts.cancelled).await;
            sleep(delay).await;
            answer(call).await;
        }
    })
    .await
}

/// Nothing is left of the calls: no endpoint counts one.
async fn assert_nothing_in_flight(pillion: &Pillion) {
    let page = pillion.get("/services/echo").await.json();
    for endpoint in page["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["in_flight"], 0, "{page}");
    }
}

#[tokio::test]
async fn where_the_first_is_slow_the_second_answers_and_the_first_is_cancelled() {
    let silent = Arc::new(silent().await);
    let alive = beside(&silent, Duration::ZERO, Incoming::echo).await;
    for connection in ["fresh", "warm", "pooled"] {
        let before = silent.counts().cancelled;
        let retry =
            format!("hedge_after = \"50ms\"\n[service.echo]\nconnection = \"{connection}\"");
        let pillion = proxy_to(silent.address(), &[&alive], &retry).await;
        let client = Client::connect(pillion.address()).await;
        let head = grpc_with("echo", &[("pillion-explain", "1")]);
        let began = Instant::now();
        let answer = client.send(head, &message(b"hello")).await.unwrap();
        assert!(answer.is_ok() && answer.body == message(b"hello"), "{connection}: {answer:?}");
        assert!(began.elapsed() >= Duration::from_millis(50));
        let why = answer.header("pillion-why").unwrap();
        assert!(why.contains("attempts=2") && why.contains(" cancelled"), "{why}");
        silent.until("it is told", |counts| counts.cancelled > before).await;
        let head = alive.last_head().headers;
        assert_eq!(
            (&head["pillion-attempt"], &head["grpc-previous-rpc-attempts"]),
            (
                &"2".parse::<http::HeaderValue>().unwrap(),
                &"1".parse::<http::HeaderValue>().unwrap()
            )
        );
        let metrics = pillion.metrics().await;
        let attempts = |outcome| metrics.sum("attempts_total", &[("outcome", outcome)]);
        assert_eq!((attempts("ok"), attempts("cancelled")), (1.0, 1.0));
        assert_eq!(metrics.sum("retries_total", &[("reason", "hedge")]), 1.0);
        assert_nothing_in_flight(&pillion).await;
    }
}

#[tokio::test]
async fn the_first_may_still_win() {
    let silent = Arc::new(silent().await);
    let slow = beside(&silent, Duration::ZERO, Incoming::echo).await;
    let pillion = proxy_to(slow.address(), &[&silent], "hedge_after = \"50ms\"").await;
    let answer = call(&pillion).await;
    assert_eq!((answer.is_ok(), answer.from()), (true, slow.address()));
    silent.until("it is told", |counts| counts.cancelled == 1).await;
    assert_nothing_in_flight(&pillion).await;
}

#[tokio::test]
async fn there_are_as_many_as_attempts_allows() {
    let others = [silent().await, silent().await, silent().await];
    let [first, second, third] = &others;
    let retry = "hedge_after = \"20ms\"";
    let pillion = proxy_to(first.address(), &[second, third], retry).await;
    let client = Client::connect(pillion.address()).await;
    let head = grpc_with("echo", &[("grpc-timeout", "3S")]);
    let answer = client.send(head, &message(b"hello")).await.unwrap();
    assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
    for backend in &others {
        let counts = backend.until("it is told", |counts| counts.cancelled == 1).await;
        assert_eq!(counts.calls, 1);
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("attempts_total", &[("outcome", "cancelled")]), 3.0);
    assert_eq!(metrics.sum("attempts_total", &[]), 3.0);
    assert_nothing_in_flight(&pillion).await;
}

#[tokio::test]
async fn other_methods_and_calls_that_are_retries_are_not_hedged() {
    let (slow, alive) = (slow(Duration::from_millis(200)).await, Backend::echo().await);
    let pillion = proxy_to(slow.address(), &[&alive], "hedge_after = \"20ms\"").await;
    let client = Client::connect(pillion.address()).await;
    let mut other = grpc("echo");
    *other.uri_mut() = "http://echo/pillion.test.Echo/Other".parse().unwrap();
    let retry = grpc_with("echo", &[("grpc-previous-rpc-attempts", "1")]);
    for head in [other, retry] {
        let answer = client.send(head, &message(b"hello")).await.unwrap();
        assert_eq!((answer.is_ok(), answer.from()), (true, slow.address()));
    }
    assert_eq!(alive.counts().calls, 0);
}

#[tokio::test]
async fn a_status_that_is_listed_brings_the_next_attempt_at_once() {
    let (failing, alive) = (failing(UNAVAILABLE, &[]).await, Backend::echo().await);
    let retry = "hedge_after = \"15s\"\non = [\"unavailable\"]";
    let pillion = proxy_to(failing.address(), &[&alive], retry).await;
    let began = Instant::now();
    assert!(call(&pillion).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_status_that_is_listed_is_no_answer_while_another_attempt_may_have_one() {
    let never = [("grpc-retry-pushback-ms", "-1")];
    for pushback in [&[][..], &never[..]] {
        let failing = Arc::new(failing(UNAVAILABLE, pushback.to_vec().leak()).await);
        let slow = beside(&failing, Duration::from_millis(300), Incoming::echo).await;
        let retry = "hedge_after = \"50ms\"\non = [\"unavailable\"]";
        let pillion = proxy_to(slow.address(), &[&failing], retry).await;
        let answer = call(&pillion).await;
        assert_eq!((answer.is_ok(), answer.from()), (true, slow.address()));
        assert_eq!(failing.counts().calls, 1);
    }
}

#[tokio::test]
async fn any_other_status_is_an_answer() {
    let silent = Arc::new(silent().await);
    let failing = beside(&silent, Duration::ZERO, |mut call| async move {
        call.begin_with(trailers_only(10, &[]), true);
    })
    .await;
    let retry = "hedge_after = \"50ms\"\non = [\"unavailable\"]";
    let pillion = proxy_to(silent.address(), &[&failing], retry).await;
    assert_eq!(call(&pillion).await.grpc_status(), Some(10));
    silent.until("it is told", |counts| counts.cancelled == 1).await;
}

#[tokio::test]
async fn where_all_fail_the_last_one_is_told() {
    let sooner = Arc::new(failing(UNAVAILABLE, &[("grpc-message", "sooner")]).await);
    let later = beside(&sooner, Duration::from_millis(300), |mut call| async move {
        call.begin_with(trailers_only(UNAVAILABLE, &[("grpc-message", "later")]), true);
    })
    .await;
    let retry = "hedge_after = \"50ms\"\non = [\"unavailable\"]";
    let pillion = proxy_to(later.address(), &[&sooner], retry).await;
    let answer = call(&pillion).await;
    assert_eq!(answer.header("grpc-message"), Some("later"));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), Some("-1"));
    assert_eq!(pillion.metrics().await.sum("attempts_total", &[("outcome", "ok")]), 2.0);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_connected_is_passed_over_beside_the_others() {
    let (silent, alive) = (silent().await, Backend::echo().await);
    let config = format!(
        "[defaults]\nfilter = \"version=first;version=dead;\"\n{HEDGED}hedge_after = \"50ms\""
    );
    let dead = crate::errors::refusing().await;
    let endpoints = [
        silent.as_endpoint_with("echo", "version = \"first\""),
        endpoint("echo", dead, "version = \"dead\""),
        alive.as_endpoint("echo"),
    ];
    let pillion = Pillion::start(&config, endpoints).await;
    let answer = call(&pillion).await;
    assert_eq!((answer.is_ok(), answer.from()), (true, alive.address()), "{answer:?}");
    // Nobody has worked on the one that was not connected.
    assert_eq!(alive.last_head().headers["grpc-previous-rpc-attempts"], "1");
}

#[tokio::test]
async fn a_body_is_needed_whole_and_small() {
    let (silent, alive) = (silent().await, Backend::echo().await);
    let pillion = proxy_to(silent.address(), &[&alive], "hedge_after = \"50ms\"").await;
    let client = Client::connect(pillion.address()).await;
    // It comes whole after the time for another attempt.
    let mut call = client.begin(grpc("echo")).await;
    call.body.send_data(message(b"one").into(), false).unwrap();
    sleep(Duration::from_millis(120)).await;
    assert_eq!(alive.counts().calls, 0);
    call.body.send_data(message(b"two").into(), true).unwrap();
    let answer = soon("an answer", Answer::read(call.answer)).await.unwrap();
    assert_eq!(&*answer.body, [message(b"one"), message(b"two")].concat());
    // It is too large.
    let slow = slow(Duration::from_secs(1)).await;
    let pillion = proxy_to(slow.address(), &[&alive], "hedge_after = \"50ms\"").await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc("echo"), &vec![7; (64 << 10) + 1]).await.unwrap();
    assert_eq!((answer.is_ok(), answer.from()), (true, slow.address()));
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("retries_skipped_total", &[("reason", "committed")]), 1.0);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_all_of_them() {
    let both = [silent().await, silent().await];
    let pillion = proxy_to(both[0].address(), &[&both[1]], "hedge_after = \"20ms\"").await;
    let client = Client::connect(pillion.address()).await;
    let mut call = client.begin(grpc("echo")).await;
    call.body.send_data(message(b"hello").into(), true).unwrap();
    for backend in &both {
        backend.until("both have it", |counts| counts.calls == 1).await;
    }
    call.body.send_reset(h2::Reason::CANCEL);
    drop(call);
    for backend in &both {
        backend.until("it is told", |counts| counts.cancelled == 1).await;
    }
    pillion
        .until_metrics("both are counted", |metrics| {
            metrics.sum("attempts_total", &[("outcome", "cancelled")]) == 2.0
        })
        .await;
    assert_nothing_in_flight(&pillion).await;
}

#[tokio::test]
async fn hedges_are_in_the_budget() {
    let (slow, alive) = (slow(Duration::from_secs(1)).await, Backend::echo().await);
    let retry = "hedge_after = \"10ms\"\nbudget = 0.0\nbudget_min_per_second = 0";
    let pillion = proxy_to(slow.address(), &[&alive], retry).await;
    assert!(call(&pillion).await.is_ok());
    assert_eq!(alive.counts().calls, 0);
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("retries_skipped_total", &[("reason", "budget")]), 1.0);
}
