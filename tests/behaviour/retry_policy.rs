//! Trying again although an endpoint may have worked on a call: where the policy says so, and only there.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h2::Reason as Code;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, get, grpc, grpc_with, message};
use crate::errors::refusing;
use crate::interop::{expected, tonic_calls_in_every_way};
use crate::program::{Pillion, endpoint};
use crate::tonic_peer::{TonicClient, TonicServer};
use crate::wait::soon;

pub(crate) const UNAVAILABLE: u8 = 14;

/// A head that says it all, with further headers.
pub(crate) fn trailers_only(status: u8, headers: &[(&'static str, &'static str)]) -> Response<()> {
    let mut head = Response::new(());
    *head.headers_mut() = trailers(status);
    let grpc = [("content-type", "application/grpc")];
    for (name, value) in grpc.iter().chain(headers) {
        head.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    head
}

/// Answers each call with nothing but a status, once it has come whole.
pub(crate) async fn failing(
    status: u8,
    headers: &'static [(&'static str, &'static str)],
) -> Backend {
    Backend::start(move |mut call: Incoming| async move {
        if call.read().await.is_ok() {
            call.begin_with(trailers_only(status, headers), true);
        }
    })
    .await
}

/// Never answers.
pub(crate) async fn silent() -> Backend {
    Backend::start(Incoming::never).await
}

const ON_UNAVAILABLE: &str = "[defaults.retry]\non = [\"unavailable\"]";

/// `first` is always asked first, `then` where that fails.
async fn proxy_to(first: SocketAddr, then: &Backend, retry: &str) -> Pillion {
    let config = format!("[defaults]\nfilter = \"version=first;\"\n{retry}");
    let first = endpoint("echo", first, "version = \"first\"");
    Pillion::start(&config, [first, then.as_endpoint("echo")]).await
}

async fn call(pillion: &Pillion) -> Answer {
    Client::connect(pillion.address()).await.call("echo").await
}

async fn skipped(pillion: &Pillion, reason: &str) -> f64 {
    pillion.metrics().await.sum("retries_skipped_total", &[("service", "echo"), ("reason", reason)])
}

#[tokio::test]
async fn a_status_that_is_listed_is_tried_again_on_another_endpoint() {
    let (failing, alive) = (failing(UNAVAILABLE, &[]).await, Backend::echo().await);
    for connection in ["fresh", "warm", "pooled"] {
        let retry = format!("connection = \"{connection}\"\n{ON_UNAVAILABLE}");
        let pillion = proxy_to(failing.address(), &alive, &retry).await;
        let client = Client::connect(pillion.address()).await;
        let explain = grpc_with("echo", &[("pillion-explain", "1")]);
        let answer = client.send(explain, &message(b"hello")).await.unwrap();
        assert!(answer.is_ok(), "{connection}: {answer:?}");
        assert_eq!(answer.body, message(b"hello"));
        let why = answer.header("pillion-why").unwrap();
        let first = format!("{} UNAVAILABLE", failing.address());
        assert!(why.contains("attempts=2") && why.contains(&first), "{why}");
        let head = alive.last_head();
        assert_eq!(head.headers["pillion-attempt"], "2");
        assert_eq!(head.headers["grpc-previous-rpc-attempts"], "1");
        assert!(!failing.last_head().headers.contains_key("grpc-previous-rpc-attempts"));
        let metrics = pillion.metrics().await;
        let retries = [("service", "echo"), ("reason", "unavailable")];
        assert_eq!(metrics.sum("retries_total", &retries), 1.0);
        assert_eq!(metrics.sum("attempts_total", &[("outcome", "ok")]), 2.0);
        assert_eq!(metrics.sum("requests_total", &[("grpc_status", "OK")]), 1.0);
        assert_eq!(metrics.sum("requests_total", &[]), 1.0);
    }
}

#[tokio::test]
async fn a_status_behind_a_head_is_tried_again_and_one_behind_a_message_is_not() {
    let alive = Backend::echo().await;
    for (message_first, expected) in [(false, 0), (true, UNAVAILABLE)] {
        let failing = Backend::start(move |mut call: Incoming| async move {
            call.read().await.unwrap();
            let mut answer = call.begin();
            // The head arrives by itself.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if message_first {
                answer.send_data(message(b"one").into(), false).unwrap();
            }
            answer.send_trailers(trailers(UNAVAILABLE)).unwrap();
        })
        .await;
        let pillion = proxy_to(failing.address(), &alive, ON_UNAVAILABLE).await;
        let answer = call(&pillion).await;
        assert_eq!(answer.grpc_status(), Some(expected), "{answer:?}");
        assert_eq!(answer.body, message(if message_first { b"one" } else { b"hello" }));
    }
    assert_eq!(alive.counts().calls, 1);
}

#[tokio::test]
async fn a_status_that_is_not_listed_passes_as_it_is() {
    let alive = Backend::echo().await;
    let failing = failing(UNAVAILABLE, &[("grpc-message", "no room"), ("x-more", "1")]).await;
    for retry in ["", "[defaults.retry]\non = [\"aborted\", \"internal\"]"] {
        let pillion = proxy_to(failing.address(), &alive, retry).await;
        let answer = call(&pillion).await;
        assert_eq!(answer.grpc_status(), Some(UNAVAILABLE));
        assert_eq!(
            (answer.header("grpc-message"), answer.header("x-more")),
            (Some("no room"), Some("1"))
        );
        assert_eq!(
            (answer.header("pillion-error"), answer.header("grpc-retry-pushback-ms")),
            (None, None)
        );
    }
    assert_eq!(alive.counts().calls, 0);
}

#[tokio::test]
async fn an_http_status_counts_as_the_grpc_status_that_clients_make_of_it() {
    let alive = Backend::echo().await;
    let page = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        let head = Response::builder().status(503).header("content-type", "text/html");
        let mut answer = call.begin_with(head.body(()).unwrap(), false);
        answer.send_data("<html>busy</html>".into(), true).unwrap();
    })
    .await;
    let pillion = proxy_to(page.address(), &alive, ON_UNAVAILABLE).await;
    assert!(call(&pillion).await.is_ok());
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(get("echo"), b"").await.unwrap();
    assert_eq!(answer.head.status, 503, "what is not gRPC has no status to be tried again after");
    assert_eq!(&*answer.body, b"<html>busy</html>");
}

#[tokio::test]
async fn the_last_failure_is_the_callers_and_tells_it_not_to_try_again() {
    let first = failing(UNAVAILABLE, &[("grpc-message", "first")]).await;
    let second = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        let mut end = trailers(UNAVAILABLE);
        end.insert("grpc-message", HeaderValue::from_static("second"));
        call.begin().send_trailers(end).unwrap();
    })
    .await;
    let pillion = proxy_to(first.address(), &second, ON_UNAVAILABLE).await;
    let answer = call(&pillion).await;
    assert_eq!(answer.header("grpc-message"), Some("second"));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), Some("-1"));
    assert_eq!((answer.grpc_status(), answer.header("pillion-error")), (Some(UNAVAILABLE), None));
    let metrics = pillion.metrics().await;
    assert_eq!(
        metrics.sum("requests_total", &[("grpc_status", "UNAVAILABLE"), ("error", "")]),
        1.0
    );
    assert_eq!(metrics.sum("attempts_total", &[]), 2.0);
}

#[tokio::test]
async fn a_call_that_is_itself_a_retry_is_not_tried_again() {
    let (failing, alive) = (failing(UNAVAILABLE, &[]).await, Backend::echo().await);
    let pillion = proxy_to(failing.address(), &alive, ON_UNAVAILABLE).await;
    let client = Client::connect(pillion.address()).await;
    let with = |attempts| grpc_with("echo", &[("grpc-previous-rpc-attempts", attempts)]);
    let answer = client.send(with("1"), &message(b"hello")).await.unwrap();
    assert_eq!((answer.grpc_status(), alive.counts().calls), (Some(UNAVAILABLE), 0));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), None, "who tries again decides");
    assert_eq!(failing.last_head().headers["grpc-previous-rpc-attempts"], "1");
    assert_eq!(skipped(&pillion, "previous_attempt").await, 1.0);
    // Nothing has reached an endpoint that cannot be connected.
    let dead = proxy_to(refusing().await, &alive, ON_UNAVAILABLE).await;
    let client = Client::connect(dead.address()).await;
    assert!(client.send(with("2"), &message(b"hello")).await.unwrap().is_ok());
    assert_eq!(alive.last_head().headers["grpc-previous-rpc-attempts"], "2");
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_is_as_if_it_had_said_unavailable() {
    let alive = Backend::echo().await;
    let reset = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        call.reset(Code::INTERNAL_ERROR);
    })
    .await;
    let cut = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        let mut answer = call.begin();
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer.send_reset(Code::INTERNAL_ERROR);
    })
    .await;
    for broken in [reset, cut] {
        let pillion = proxy_to(broken.address(), &alive, ON_UNAVAILABLE).await;
        let answer = call(&pillion).await;
        assert!(answer.is_ok(), "{answer:?}");
        let metrics = pillion.metrics().await;
        assert_eq!(metrics.sum("retries_total", &[("reason", "reset")]), 1.0);
        assert_eq!(metrics.sum("attempts_total", &[("outcome", "reset")]), 1.0);
    }
}

#[tokio::test]
async fn an_endpoint_says_when_to_try_again_and_whether_to() {
    let alive = Backend::echo().await;
    let later = failing(UNAVAILABLE, &[("grpc-retry-pushback-ms", "300")]).await;
    let pillion = proxy_to(later.address(), &alive, ON_UNAVAILABLE).await;
    let began = Instant::now();
    assert!(call(&pillion).await.is_ok());
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    for never in [&[("grpc-retry-pushback-ms", "-1")], &[("grpc-retry-pushback-ms", "soon")]] {
        let failing = failing(UNAVAILABLE, never).await;
        let pillion = proxy_to(failing.address(), &alive, ON_UNAVAILABLE).await;
        let answer = call(&pillion).await;
        assert_eq!(answer.header("grpc-retry-pushback-ms"), Some(never[0].1));
        assert_eq!(skipped(&pillion, "pushback").await, 1.0);
    }
    assert_eq!(alive.counts().calls, 1);
}

#[tokio::test]
async fn a_wait_that_would_not_leave_time_is_not_begun() {
    let alive = Backend::echo().await;
    let later = failing(UNAVAILABLE, &[("grpc-retry-pushback-ms", "60000")]).await;
    let pillion = proxy_to(later.address(), &alive, ON_UNAVAILABLE).await;
    let client = Client::connect(pillion.address()).await;
    let head = grpc_with("echo", &[("grpc-timeout", "15S")]);
    let began = Instant::now();
    let answer = client.send(head, &message(b"hello")).await.unwrap();
    assert_eq!(answer.grpc_status(), Some(UNAVAILABLE), "what the endpoint said");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(skipped(&pillion, "deadline").await, 1.0);
}

#[tokio::test]
async fn attempts_wait_longer_and_longer_between_them() {
    let mut backends = Vec::new();
    for _ in 0..4 {
        backends.push(failing(UNAVAILABLE, &[]).await);
    }
    let config = "[defaults]\nattempts = 4\n[defaults.retry]\non = [\"unavailable\"]\n\
                  backoff = \"100ms\"\nbackoff_max = \"200ms\"";
    let endpoints = backends.iter().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start(config, endpoints).await;
    let began = Instant::now();
    assert_eq!(call(&pillion).await.grpc_status(), Some(UNAVAILABLE));
    // 100, 200 and 200 ms, each shortened by a half at most.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(backends.iter().all(|backend| backend.counts().calls == 1));
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_64_kib_and_not_beyond() {
    let (failing, alive) = (failing(UNAVAILABLE, &[]).await, Backend::echo().await);
    let pillion = proxy_to(failing.address(), &alive, ON_UNAVAILABLE).await;
    let client = Client::connect(pillion.address()).await;
    let kept = vec![7; 64 << 10];
    let answer = client.send(grpc("echo"), &kept).await.unwrap();
    assert_eq!((&*answer.body, answer.grpc_status()), (&*kept, Some(0)));
    let answer = client.send(grpc("echo"), &vec![7; (64 << 10) + 1]).await.unwrap();
    assert_eq!(answer.grpc_status(), Some(UNAVAILABLE));
    assert_eq!(alive.counts().calls, 1);
    assert_eq!(skipped(&pillion, "committed").await, 1.0);
}

#[tokio::test]
async fn an_answer_to_a_call_that_has_not_been_sent_whole_is_not_held_back() {
    let server = TonicServer::start().await;
    let endpoints = [endpoint("echo", server.address(), "")];
    let pillion = Pillion::start(ON_UNAVAILABLE, endpoints).await;
    let mut client = TonicClient::connect(pillion.address(), "echo").await;
    let (say, said) = mpsc::unbounded_channel();
    // Nothing has been said yet, and the server waits for a message before it sends one.
    let answer = soon("initial metadata", client.chat(UnboundedReceiverStream::new(said))).await;
    drop(say);
    let messages = answer.unwrap().into_inner().map(|message| message.unwrap());
    assert_eq!(messages.collect::<Vec<_>>().await, ["bye"]);
}

#[tokio::test]
async fn a_call_whose_body_is_still_coming_is_tried_again_with_what_has_come() {
    let alive = Backend::echo().await;
    let hasty = Backend::start(|mut call: Incoming| async move {
        let _first = call.body.data().await.unwrap().unwrap();
        call.begin_with(trailers_only(UNAVAILABLE, &[]), true);
    })
    .await;
    let pillion = proxy_to(hasty.address(), &alive, ON_UNAVAILABLE).await;
    let client = Client::connect(pillion.address()).await;
    let mut call = client.begin(grpc("echo")).await;
    call.body.send_data(message(b"one").into(), false).unwrap();
    alive.until("the next endpoint has the call", |counts| counts.calls == 1).await;
    call.body.send_data(message(b"two").into(), true).unwrap();
    let answer = soon("an answer", Answer::read(call.answer)).await.unwrap();
    assert_eq!(&*answer.body, [message(b"one"), message(b"two")].concat());
}

#[tokio::test]
async fn nothing_else_of_a_call_changes_where_it_may_be_tried_again() {
    let server = TonicServer::start().await;
    for connection in ["fresh", "pooled"] {
        let all = "on = [\"unavailable\", \"aborted\", \"failed_precondition\", \"unimplemented\"]";
        let config = format!(
            "[defaults]\nconnection = \"{connection}\"\n[defaults.retry]\n{all}\n\
             per_try_timeout = \"15s\"\nhedge_after = \"10s\"\n\
             hedge_methods = [\"/pillion.test.Echo/Unary\"]"
        );
        let pillion = Pillion::start(&config, [endpoint("echo", server.address(), "")]).await;
        assert_eq!(tonic_calls_in_every_way(pillion.address()).await, expected());
    }
}

#[tokio::test]
async fn an_attempt_whose_answer_does_not_begin_in_time_is_cancelled_and_tried_again() {
    let (silent, alive) = (silent().await, Backend::echo().await);
    for connection in ["fresh", "pooled"] {
        let before = silent.counts().cancelled;
        let retry =
            format!("connection = \"{connection}\"\n[defaults.retry]\nper_try_timeout = \"2s\"");
        let pillion = proxy_to(silent.address(), &alive, &retry).await;
        let answer = call(&pillion).await;
        assert!(answer.is_ok(), "{answer:?}");
        silent.until("it is told", |counts| counts.cancelled > before).await;
        let metrics = pillion.metrics().await;
        assert_eq!(metrics.sum("retries_total", &[("reason", "per_try_timeout")]), 1.0);
        assert_eq!(metrics.sum("attempts_total", &[("outcome", "cancelled")]), 1.0);
    }
}

#[tokio::test]
async fn a_call_no_attempt_of_which_is_answered_in_time_ends_after_the_last() {
    let both = [silent().await, silent().await];
    let endpoints = both.each_ref().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start("[defaults.retry]\nper_try_timeout = \"2s\"", endpoints).await;
    let answer = call(&pillion).await;
    assert_eq!(answer.grpc_status(), Some(4));
    assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
    let text = answer.header("grpc-message").unwrap();
    assert!(text.contains("within 2s") && text.contains("per_try_timeout"), "{text}");
    assert!(both.iter().all(|backend| backend.counts().calls == 1));
}

#[tokio::test]
async fn an_answer_that_has_begun_may_take_longer_than_an_attempt() {
    let slow = Backend::start(|mut call: Incoming| async move {
        let mut answer = call.begin();
        answer.send_data(message(b"one").into(), false).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        answer.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let config = "[defaults.retry]\non = [\"unavailable\"]\nper_try_timeout = \"2s\"";
    let pillion = Pillion::start(config, [slow.as_endpoint("echo")]).await;
    let answer = call(&pillion).await;
    assert!(answer.is_ok() && answer.body == message(b"one"), "{answer:?}");
}

/// What may reach a service that is called so often: a fifth more, give or take, and the three a second that there
/// are in any case.
pub(crate) fn most(calls: usize, began: Instant) -> usize {
    calls * 5 / 4 + 3 * began.elapsed().as_secs() as usize
}

#[tokio::test]
async fn a_budget_of_all_workers_together_holds_in_an_outage() {
    const CALLS: usize = 500;
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(failing(UNAVAILABLE, &[]).await);
    }
    let config = "[defaults]\nconnection = \"pooled\"\n[defaults.retry]\non = [\"unavailable\"]";
    let endpoints = backends.iter().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start(config, endpoints).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(pillion.address()).await);
    }
    let began = Instant::now();
    let answers =
        stream::iter(0..CALLS).map(|at| clients[at % 4].call("echo")).buffer_unordered(16);
    let answers: Vec<Answer> = answers.collect().await;
    assert!(answers.iter().all(|answer| answer.grpc_status() == Some(UNAVAILABLE)));
    let reached: usize = backends.iter().map(|backend| backend.counts().calls).sum();
    // A fifth more, give or take what two workers take at once.
    assert!((CALLS + 90..most(CALLS, began)).contains(&reached), "{reached} for {CALLS}");
    let refused = skipped(&pillion, "budget").await;
    assert!(refused > 300.0, "{refused}");
    let told = |answer: &&Answer| answer.header("grpc-retry-pushback-ms") == Some("-1");
    assert_eq!(answers.iter().filter(told).count(), CALLS, "to add nothing to it");
}

#[tokio::test]
async fn a_service_that_refuses_everything_gets_no_more_than_one_that_fails() {
    const CALLS: usize = 500;
    let mut backends = Vec::new();
    for _ in 0..3 {
        let refuse = |call: Incoming| async { call.reset(Code::REFUSED_STREAM) };
        backends.push(Backend::start(refuse).await);
    }
    let endpoints = backends.iter().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start(ON_UNAVAILABLE, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let began = Instant::now();
    let answers = stream::iter(0..CALLS).map(|_| client.call("echo")).buffer_unordered(8);
    let answers: Vec<Answer> = answers.collect().await;
    assert!(answers.iter().all(|answer| answer.header("pillion-error") == Some("connect_failed")));
    let reached: usize = backends.iter().map(|backend| backend.counts().calls).sum();
    assert!((CALLS + 90..=most(CALLS, began)).contains(&reached), "{reached} for {CALLS}");
}

#[tokio::test]
async fn one_endpoint_that_refuses_what_others_take_costs_no_call() {
    const CALLS: usize = 300;
    let refusing = Backend::start(|call: Incoming| async { call.reset(Code::REFUSED_STREAM) });
    let (refusing, alive) = (refusing.await, Backend::echo().await);
    // All calls ask it first, however often it refuses.
    let retry = format!("eject.max_share = 0.0\n{ON_UNAVAILABLE}");
    let pillion = proxy_to(refusing.address(), &alive, &retry).await;
    let client = Client::connect(pillion.address()).await;
    let answers = stream::iter(0..CALLS).map(|_| client.call("echo")).buffer_unordered(8);
    assert!(answers.all(async |answer| answer.is_ok()).await);
    assert_eq!((refusing.counts().calls, alive.counts().calls), (CALLS, CALLS));
}

#[tokio::test]
async fn a_route_and_a_service_have_policies_of_their_own_until_they_change() {
    let (failing, alive) = (failing(UNAVAILABLE, &[]).await, Backend::echo().await);
    let routes = "[[route]]\nmethod = \"/pillion.test.Echo/Once\"\nservice = \"echo\"\nattempts = 1\n\
                  [route.retry]\non = []\n[service.echo.retry]\non = [\"unavailable\"]";
    let pillion = proxy_to(failing.address(), &alive, routes).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    let mut once = grpc("echo");
    *once.uri_mut() = "http://echo/pillion.test.Echo/Once".parse().unwrap();
    let answer = client.send(once, &message(b"hello")).await.unwrap();
    assert_eq!(answer.grpc_status(), Some(UNAVAILABLE));
    pillion.set_config("[defaults]\nfilter = \"version=first;\"");
    let read = |metrics: &crate::metrics::Metrics| {
        metrics.sum("config_reloads_total", &[("result", "ok")])
    };
    pillion.until_metrics("the change is read", |metrics| read(metrics) >= 1.0).await;
    assert_eq!(client.call("echo").await.grpc_status(), Some(UNAVAILABLE));
}

/// With the addresses and figures of the page, which are others each time, put aside.
fn shape(line: &str) -> String {
    let figure = |c: char| c.is_ascii_digit() || c == '.';
    let mut shape = String::new();
    for c in line.chars() {
        match c {
            c if figure(c) && shape.ends_with('#') => {}
            c if figure(c) => shape.push('#'),
            c => shape.push(c),
        }
    }
    shape
}

#[tokio::test]
async fn the_example_of_the_page_on_retries_does_what_the_page_says() {
    let page = include_str!("../../docs/retries.md");
    let block = |fence: &str| page.split_once(fence).unwrap().1.split_once("```").unwrap().0;
    let (config, expected) = (block("```toml\n"), block("```text\n"));
    let mut backends = Vec::new();
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    for _ in 0..3 {
        let first = std::sync::Arc::clone(&first);
        let answer = move |mut call: Incoming| {
            let busy = first.swap(false, std::sync::atomic::Ordering::Relaxed);
            async move {
                if !busy {
                    return call.echo().await;
                }
                call.read().await.unwrap();
                call.begin_with(trailers_only(UNAVAILABLE, &[]), true);
            }
        };
        backends.push(Backend::start(answer).await);
    }
    let endpoints = backends.iter().map(|backend| backend.as_endpoint("orders"));
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let head = grpc_with("orders", &[("pillion-explain", "1")]);
    let answer = client.send(head, &message(b"hello")).await.unwrap();
    let why = answer.header("pillion-why").unwrap();
    assert_eq!(shape(&format!("pillion-why: {why}")), shape(expected.trim_end()), "{why}");
}

#[tokio::test]
async fn a_policy_without_an_endpoint_left_says_so() {
    let failing = failing(UNAVAILABLE, &[]).await;
    let pillion = Pillion::start(ON_UNAVAILABLE, [failing.as_endpoint("echo")]).await;
    let answer = call(&pillion).await;
    assert_eq!((answer.grpc_status(), failing.counts().calls), (Some(UNAVAILABLE), 1));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), None);
    assert_eq!(skipped(&pillion, "no_endpoint").await, 1.0);
}

#[tokio::test]
async fn a_message_of_metadata_alone_is_no_message() {
    // What follows an empty DATA frame may still be tried again.
    let alive = Backend::echo().await;
    let failing = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        let mut answer = call.begin();
        answer.send_data(Bytes::new(), false).unwrap();
        answer.send_trailers(HeaderMap::new()).unwrap();
    })
    .await;
    let retry = "[defaults.retry]\non = [\"unknown\"]";
    let pillion = proxy_to(failing.address(), &alive, retry).await;
    let answer = call(&pillion).await;
    assert!(answer.is_ok(), "no status at all is UNKNOWN: {answer:?}");
}
