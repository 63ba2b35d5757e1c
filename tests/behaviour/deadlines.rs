//! Time limits of calls: kept by the proxy itself, and passed on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason as Code;
use pillion::grpc_timeout;
use tokio::time::sleep;

use crate::backend::{Backend, Incoming};
use crate::client::{Client, get, grpc_with, read_all};
use crate::ledger::slow_to_connect;
use crate::program::{Pillion, Program, endpoint};
use crate::raw::serve_tcp;
use crate::wait::soon;

/// What the newest call says of its time.
fn timeout_at(backend: &Backend) -> Option<Duration> {
    grpc_timeout::parse(backend.last_head().headers.get("grpc-timeout")?.as_bytes())
}

#[tokio::test]
async fn the_callers_timeout_is_passed_on_less_the_time_already_spent() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    for asked in ["100S", "99999999u", "1M", "1H"] {
        let head = grpc_with("echo", &[("grpc-timeout", asked)]);
        assert!(client.send(head, b"").await.unwrap().is_ok());
        let (asked, left) =
            (grpc_timeout::parse(asked.as_bytes()).unwrap(), timeout_at(&backend).unwrap());
        assert!(left < asked && left > asked - Duration::from_secs(20), "{left:?} of {asked:?}");
    }
    assert!(client.call("echo").await.is_ok());
    assert_eq!(timeout_at(&backend), None, "nobody asked for one");
}

#[tokio::test]
async fn a_further_attempt_is_given_what_the_first_has_left() {
    // The first choice takes half a second to show that it does not answer.
    let closing = serve_tcp(|tcp| async move {
        sleep(Duration::from_millis(500)).await;
        drop(tcp);
    })
    .await;
    let backend = Backend::echo().await;
    let endpoints = [endpoint("echo", closing, "version = \"first\""), backend.as_endpoint("echo")];
    let config = "[defaults]\nconnect_timeout = \"20s\"\nfilter = \"version=first;\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let head = grpc_with("echo", &[("grpc-timeout", "100S")]);
    assert!(client.send(head, b"").await.unwrap().is_ok());
    assert_eq!(backend.last_head().headers["pillion-attempt"], "2");
    assert!(timeout_at(&backend).unwrap() <= Duration::from_millis(99_500));
}

#[tokio::test]
async fn the_shorter_of_the_callers_and_the_configured_timeout_counts() {
    let backend = Backend::echo().await;
    let config = "[service.echo]\ntimeout = \"60s\"";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    for (asked, counts) in [("30S", 30), ("90S", 60), ("nonsense", 60)] {
        let head = grpc_with("echo", &[("grpc-timeout", asked)]);
        assert!(client.send(head, b"").await.unwrap().is_ok());
        let left = timeout_at(&backend).unwrap().as_secs_f64();
        assert!(left < f64::from(counts) && left > f64::from(counts) - 20.0, "{asked}: {left}");
    }
    // As long as the call is: what is not gRPC is told, too.
    assert!(client.send(get("echo"), b"").await.unwrap().head.status.is_success());
    assert!(timeout_at(&backend).is_some());
}

#[tokio::test]
async fn a_call_that_gets_no_answer_in_time_is_ended_on_both_sides() {
    let backend = Backend::start(Incoming::never).await;
    // Long enough to be connected meanwhile.
    let config = "[service.web]\ntimeout = \"300ms\"\n[service.pooled]\nconnection = \"pooled\"";
    let endpoints = ["echo", "pooled", "web"].map(|service| backend.as_endpoint(service));
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for (count, service) in [(1, "echo"), (2, "pooled")] {
        let began = Instant::now();
        // The caller itself lets it run on.
        let head = grpc_with(service, &[("grpc-timeout", "2S")]);
        let answer = client.send(head, b"").await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(2));
        assert_eq!(answer.grpc_status(), Some(4));
        assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
        let message = answer.header("grpc-message").unwrap();
        assert!(message.contains(&format!("service {service}")), "{message}");
        backend.until("the call is cancelled", |counts| counts.cancelled == count).await;
    }
    let answer = client.send(get("web"), b"").await.unwrap();
    assert_eq!(answer.head.status, 504);
    assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_broken_off() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        down.send_data(Bytes::from_static(b"half"), false).unwrap();
        call.hold(down).await;
    })
    .await;
    let config = "[defaults]\ntimeout = \"2s\"";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.call("echo").await;
    assert_eq!((&*answer.body, answer.grpc_status()), (&b"half"[..], Some(4)));
    assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
    // Whoever reads no trailers must see an error: CANCEL is a clean end for many clients.
    let call = client.begin(get("echo")).await;
    let mut body = soon("the head", call.answer).await.unwrap().into_body();
    let error = soon("the end", read_all(&mut body)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Code::INTERNAL_ERROR));
    backend.until("both are cancelled", |counts| counts.cancelled == 2).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_an_endpoint_is_connected_is_a_deadline() {
    let silent = serve_tcp(|tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    for connection in ["fresh", "warm", "pooled"] {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [endpoint("echo", silent, "")]).await;
        let client = Client::connect(pillion.address()).await;
        for _ in 0..5 {
            let head = grpc_with("echo", &[("grpc-timeout", "50m")]);
            let answer = client.send(head, b"").await.unwrap();
            let error = answer.header("pillion-error");
            assert_eq!((answer.grpc_status(), error), (Some(4), Some("deadline_exceeded")));
        }
    }
}

#[tokio::test]
async fn a_timeout_of_zero_is_over_and_one_that_is_none_does_no_harm() {
    let (backend, never) = (Backend::echo().await, Backend::start(Incoming::never).await);
    let endpoints = [backend.as_endpoint("echo"), never.as_endpoint("never")];
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc_with("never", &[("grpc-timeout", "0n")]), b"x").await.unwrap();
    assert_eq!(answer.grpc_status(), Some(4));
    for none in ["", "S", "1", "123456789m", "-1S", "1.5S", "1s", "99999999999999999999H", "é"] {
        let head = grpc_with("echo", &[("grpc-timeout", none)]);
        assert!(client.send(head, b"").await.unwrap().is_ok(), "{none}");
        let passed_on = backend.last_head().headers["grpc-timeout"].as_bytes().to_vec();
        assert_eq!(String::from_utf8_lossy(&passed_on), none);
    }
    let longest = grpc_with("echo", &[("grpc-timeout", "99999999H")]);
    assert!(client.send(longest, b"").await.unwrap().is_ok());
    let doubled = grpc_with("echo", &[("grpc-timeout", "90S"), ("grpc-timeout", "80S")]);
    assert!(client.send(doubled, b"").await.unwrap().is_ok());
    assert_eq!(backend.last_head().headers.get_all("grpc-timeout").iter().count(), 1);
}

#[tokio::test]
async fn a_call_without_any_time_reaches_no_endpoint() {
    for connection in ["fresh", "warm", "pooled"] {
        let backend = Backend::echo().await;
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [backend.as_endpoint("echo")]).await;
        let client = Client::connect(pillion.address()).await;
        let answer = client.send(grpc_with("echo", &[("grpc-timeout", "0n")]), b"").await.unwrap();
        assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
        assert_eq!(backend.counts().accepted, 0);
        let picks = pillion.metrics().await.sum("picks_total", &[("service", "echo")]);
        assert_eq!(picks, 0.0);
    }
}

#[tokio::test]
async fn a_further_attempt_that_could_not_connect_in_time_is_not_begun() {
    let silent = serve_tcp(|tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    let backend = Backend::echo().await;
    let slow = slow_to_connect(backend.address(), Duration::from_millis(600)).await;
    let endpoints =
        [endpoint("echo", silent, "version = \"v1\""), endpoint("echo", slow, "version = \"v2\"")];
    let config = "[defaults]\nconnect_timeout = \"3s\"\nfilter = \"version=v1;\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    // Nothing is known yet, so it is tried; and then it is known how long it takes.
    let second = grpc_with("echo", &[("pillion-filter", "version=v2")]);
    assert!(client.send(second, b"").await.unwrap().is_ok());
    let began = Instant::now();
    let head = grpc_with("echo", &[("grpc-timeout", "3300m")]);
    let answer = client.send(head, b"").await.unwrap();
    assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"));
    let message = answer.header("grpc-message").unwrap();
    // On a machine so busy that the deadline itself has passed, there is nothing to see.
    if began.elapsed() < Duration::from_millis(3300) {
        assert!(message.contains("so no further attempt was made"), "{message}");
    }
    assert_eq!(backend.counts().accepted, 1, "not even connected");
    let head = grpc_with("echo", &[("grpc-timeout", "60S")]);
    assert!(client.send(head, b"").await.unwrap().is_ok(), "with time enough it is");
}

#[tokio::test]
async fn the_time_of_a_call_runs_while_its_service_is_being_looked_up() {
    let silent = serve_tcp(|tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    let config = format!(
        "[defaults]\nconnect_timeout = \"60s\"\n[[source]]\nendpoints = [\"http://{silent}\"]"
    );
    let pillion = Program::new(&config).start_unready().await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc_with("echo", &[("grpc-timeout", "200m")]), b"").await.unwrap();
    let error = answer.header("pillion-error").unwrap();
    assert_eq!((answer.grpc_status(), error), (Some(4), "deadline_exceeded"), "{answer:?}");
}
