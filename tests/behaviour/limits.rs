//! Limits: how many calls are let through, and what the others are told.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use h2::client::ResponseFuture;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use crate::backend::Backend;
use crate::client::{Answer, Client, get, grpc, grpc_with};
use crate::program::Pillion;
use crate::wait::{soon, until};

/// A backend that answers a call for each permit that it is given.
async fn patient() -> (Backend, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let given = Arc::clone(&permits);
    let backend = Backend::start(move |call| {
        let given = Arc::clone(&given);
        async move {
            given.acquire().await.unwrap().forget();
            call.echo().await;
        }
    })
    .await;
    (backend, permits)
}

/// Begins this many calls, spread over connections of both workers.
async fn begin(clients: &[Client], service: &str, count: usize) -> Vec<ResponseFuture> {
    let mut answers = Vec::new();
    for number in 0..count {
        let mut call = clients[number % clients.len()].begin(grpc(service)).await;
        call.body.send_data("hello".into(), true).unwrap();
        answers.push(call.answer);
    }
    answers
}

async fn connect(pillion: &Pillion, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(pillion.address()).await);
    }
    clients
}

/// Reads all answers: those that are good, and those that are not.
async fn read(answers: Vec<ResponseFuture>) -> (Vec<Answer>, Vec<Answer>) {
    let mut reading: JoinSet<_> = answers.into_iter().map(Answer::read).collect();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while let Some(read) = soon("all answers", reading.join_next()).await {
        let answer = read.unwrap().unwrap();
        if answer.is_ok() { good.push(answer) } else { bad.push(answer) }
    }
    (good, bad)
}

/// The answer is a refusal, which says when to come again.
fn is_refusal(answer: &Answer) -> bool {
    let pushback = answer.header("grpc-retry-pushback-ms").and_then(|ms| ms.parse::<u32>().ok());
    answer.grpc_status() == Some(8)
        && answer.header("pillion-error") == Some("overloaded")
        && pushback.is_some_and(|ms| (1..=2_000).contains(&ms))
}

#[tokio::test]
async fn exactly_as_many_calls_as_allowed_are_in_flight_and_the_others_are_told_at_once() {
    let (backend, permits) = patient().await;
    let config = "[service.echo.limits]\nmax_in_flight = 10";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let clients = connect(&pillion, 4).await;
    let answers = begin(&clients, "echo", 60).await;
    backend.until("ten calls have come", |counts| counts.calls == 10).await;
    // Refusals come while those ten wait; nothing else ends the calls.
    let refused = async |metrics: &crate::metrics::Metrics| {
        metrics.sum("limited_total", &[("service", "echo"), ("limit", "max_in_flight")])
    };
    until("fifty are refused", async || refused(&pillion.metrics().await).await == 50.0).await;
    assert_eq!(backend.counts().calls, 10);
    permits.add_permits(10);
    let (good, bad) = read(answers).await;
    assert_eq!((good.len(), bad.len()), (10, 50));
    assert!(bad.iter().all(is_refusal), "{:?}", bad[0]);
    let message = bad[0].header("grpc-message").unwrap();
    assert!(message.contains("service echo: 10 calls are in flight"), "{message}");
    permits.add_permits(10);
    let (good, _) = read(begin(&clients, "echo", 10).await).await;
    assert_eq!(good.len(), 10, "all places are free again");
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_leaves_its_place() {
    let (backend, permits) = patient().await;
    let config = "[defaults.limits]\nmax_in_flight = 1";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let mut call = client.begin(grpc("echo")).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    assert!(is_refusal(&client.call("echo").await));
    call.body.send_reset(h2::Reason::CANCEL);
    permits.add_permits(100);
    until("there is a place", async || client.call("echo").await.is_ok()).await;
}

#[tokio::test]
async fn what_is_not_grpc_is_told_in_the_words_of_http() {
    let (backend, _permits) = patient().await;
    let config = "[defaults.limits]\nmax_in_flight = 1";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let _held = client.begin(grpc("echo")).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    let answer = client.send(get("echo"), b"").await.unwrap();
    assert_eq!((answer.head.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.header("pillion-error"), Some("overloaded"));
}

#[tokio::test]
async fn an_endpoint_that_has_as_many_calls_as_it_may_leaves_the_others_to_its_siblings() {
    let backends = [patient().await, patient().await, patient().await];
    let weights = ["weight = 1", "weight = 10", "weight = 100"];
    let endpoints = backends.iter().zip(weights);
    let endpoints =
        endpoints.map(|((backend, _), weight)| backend.as_endpoint_with("echo", weight));
    for balance in ["p2c", "round_robin", "weighted_random"] {
        let config =
            format!("[defaults]\nbalance = \"{balance}\"\nlimits.max_in_flight_per_endpoint = 4");
        let pillion = Pillion::start(&config, endpoints.clone()).await;
        let clients = connect(&pillion, 4).await;
        let before = backends.each_ref().map(|(backend, _)| backend.counts().calls);
        let answers = begin(&clients, "echo", 40).await;
        for ((backend, _), before) in backends.iter().zip(before) {
            let come = |counts: &crate::backend::Counts| counts.calls == before + 4;
            backend.until("four calls have come", come).await;
        }
        // One that is on its way until then would find a place once the others have left.
        let refused = [("error", "overloaded")];
        pillion
            .until_metrics("the others are refused", |metrics| {
                metrics.sum("requests_total", &refused) == 28.0
            })
            .await;
        let pinned = grpc(&format!("echo@{}", backends[0].0.address()));
        let mut pinned = clients[0].begin(pinned).await;
        pinned.body.send_data("hello".into(), true).unwrap();
        let pinned = soon("an answer", Answer::read(pinned.answer)).await.unwrap();
        assert!(is_refusal(&pinned), "a pin is no way around: {pinned:?}");
        backends.iter().for_each(|(_, permits)| permits.add_permits(4));
        let (good, bad) = read(answers).await;
        assert!(bad.iter().all(is_refusal));
        let mut from = HashMap::<SocketAddr, usize>::new();
        good.iter().for_each(|answer| *from.entry(answer.from()).or_default() += 1);
        assert_eq!((good.len(), from.into_values().collect()), (12, vec![4, 4, 4]), "{balance}");
    }
}

#[tokio::test]
async fn all_calls_together_are_limited_whichever_service_they_are_for_until_a_reload_allows_more()
{
    let (backend, permits) = patient().await;
    let endpoints = ["one", "two"].map(|service| backend.as_endpoint(service));
    let pillion = Pillion::start("max_in_flight = 2", endpoints).await;
    let clients = connect(&pillion, 2).await;
    let held = [begin(&clients, "one", 1).await, begin(&clients, "two", 1).await];
    backend.until("both have come", |counts| counts.calls == 2).await;
    assert!(is_refusal(&clients[1].call("one").await));
    assert!(is_refusal(&clients[0].call("nowhere").await), "before anything is looked up");
    pillion.set_config("max_in_flight = 3");
    loop {
        let mut answers = begin(&clients, "one", 1).await;
        tokio::select! {
            refused = Answer::read(answers.remove(0)) => assert!(is_refusal(&refused.unwrap())),
            _ = backend.until("a third has come", |counts| counts.calls == 3) => break,
        }
    }
    permits.add_permits(3);
    let (good, _) = read(held.into_iter().flatten().collect()).await;
    assert_eq!(good.len(), 2);
}

/// How many of `calls` with this head are let through.
async fn passed(client: &Client, calls: usize, head: impl Fn() -> http::Request<()>) -> usize {
    let mut passed = 0;
    for _ in 0..calls {
        let answer = client.send(head(), b"hello").await.unwrap();
        assert!(answer.is_ok() || is_refusal(&answer), "{answer:?}");
        passed += usize::from(answer.is_ok());
    }
    passed
}

#[tokio::test]
async fn a_rate_is_kept_for_a_service_for_each_value_of_a_header_or_for_each_method() {
    let backend = Backend::echo().await;
    let config = "
        [service.plain.limits]
        rate = 1
        burst = 5
        [service.tenants.limits]
        rate = 1
        burst = 5
        rate_by = \"header:X-Tenant\"
        [service.methods.limits]
        rate = 1
        burst = 5
        rate_by = \"method\"
    ";
    let services = ["plain", "tenants", "methods"];
    let pillion =
        Pillion::start(config, services.map(|service| backend.as_endpoint(service))).await;
    let clients = connect(&pillion, 2).await;
    let began = Instant::now();
    // A bucketful, and one more for each second that the test has taken since.
    let is_one_bucket = |passed: usize| {
        let more = began.elapsed().as_secs() as usize + 1;
        (5..=5 + more).contains(&passed)
    };
    let both = async |head: &dyn Fn() -> http::Request<()>| {
        passed(&clients[0], 15, head).await + passed(&clients[1], 15, head).await
    };
    let plain = both(&|| grpc_with("plain", &[("x-tenant", "a")])).await;
    assert!(is_one_bucket(plain), "{plain}");
    for tenant in ["a", "b"] {
        let passed = both(&|| grpc_with("tenants", &[("x-tenant", tenant)])).await;
        assert!(is_one_bucket(passed), "{tenant}: {passed}");
    }
    for method in ["/p.S/A", "/p.S/B"] {
        let passed = both(&|| {
            let mut head = grpc("methods");
            *head.uri_mut() = format!("http://methods{method}").parse().unwrap();
            head
        })
        .await;
        assert!(is_one_bucket(passed), "{method}: {passed}");
    }
    let refused = pillion.metrics().await.sum("limited_total", &[("limit", "rate")]);
    assert!(refused >= 5.0 * 20.0, "{refused}");
}

#[tokio::test]
async fn whoever_comes_again_when_told_to_is_let_through() {
    let backend = Backend::echo().await;
    let config = "[defaults.limits]\nrate = 5\nburst = 1";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..10 {
        let answer = client.call("echo").await;
        if !answer.is_ok() {
            let pushback = answer.header("grpc-retry-pushback-ms").unwrap().parse().unwrap();
            tokio::time::sleep(Duration::from_millis(pushback)).await;
            assert!(client.call("echo").await.is_ok(), "after {pushback} ms");
        }
    }
}

#[tokio::test]
async fn an_adaptive_limit_shrinks_while_a_service_has_too_much_to_do_and_grows_when_it_recovers() {
    let (workers, millis) = (Arc::new(Semaphore::new(5)), Arc::new(AtomicU64::new(50)));
    let work = Arc::clone(&millis);
    let backend = Backend::start(move |call| {
        let (workers, work) = (Arc::clone(&workers), Arc::clone(&work));
        async move {
            let worker = workers.acquire().await.unwrap();
            tokio::time::sleep(Duration::from_millis(work.load(Relaxed))).await;
            drop(worker);
            call.echo().await;
        }
    })
    .await;
    let config = "[defaults]\nconnection = \"pooled\"\nlimits.adaptive = true";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let clients = connect(&pillion, 2).await;
    let limit = async || pillion.metrics().await.sum("adaptive_limit", &[("service", "echo")]);
    let wave = async |count| {
        let (good, bad) = read(begin(&clients, "echo", count).await).await;
        assert!(!good.is_empty() && bad.iter().all(is_refusal));
        bad.len()
    };
    // Several windows of what is usual.
    for _ in 0..40 {
        assert_eq!(wave(5).await, 0);
    }
    assert_eq!(limit().await, 100.0);
    until("the limit has shrunk", async || wave(150).await >= 50 && limit().await < 60.0).await;
    millis.store(0, Relaxed);
    until("the limit has grown", async || wave(45).await == 0 && limit().await > 60.0).await;
}
