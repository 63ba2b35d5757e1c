//! How the program stops: without losing a call, and without waiting for ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::{net::TcpStream, sync::Notify, time::sleep};

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, get, grpc, grpc_with, message};
use crate::program::{Pillion, Program};
use crate::python::PatientClient;
use crate::raw::{END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Wire, grpc_fields};
use crate::wait::{soon, until};

/// A backend that answers when it is told to.
async fn patient() -> (Backend, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let backend = Backend::start(move |mut call: Incoming| {
        let told = Arc::clone(&told);
        async move {
            let mut down = call.begin();
            told.notified().await;
            down.send_data(Bytes::from_static(b"late"), false).unwrap();
            down.send_trailers(trailers(0)).unwrap();
        }
    })
    .await;
    (backend, go_on)
}

#[tokio::test]
async fn calls_in_flight_are_finished_and_new_ones_are_sent_away() {
    let (backend, go_on) = patient().await;
    let mut pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let mut idle = Client::connect(pillion.address()).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(client.begin(grpc("echo")).await);
    }
    backend.until("all calls have come", |counts| counts.calls == 20).await;
    assert_eq!(pillion.get("/ready").await.status, 200);
    pillion.signal(Signal::TERM);
    soon("the idle connection is told to go", idle.ended()).await.unwrap();
    let ready = pillion.get("/ready").await;
    assert_eq!((ready.status, &*ready.text), (503, "draining\n"));
    assert_eq!(pillion.get("/live").await.status, 200);
    until("the listener is closed", async || TcpStream::connect(pillion.address()).await.is_err())
        .await;
    assert!(!pillion.has_ended());
    go_on.notify_waiters();
    for call in calls {
        let answer = soon("an answer", Answer::read(call.answer)).await.unwrap();
        assert_eq!((&*answer.body, answer.grpc_status()), (&b"late"[..], Some(0)));
    }
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn no_call_of_callers_that_keep_calling_is_lost() {
    let backend = Backend::echo().await;
    for connection in ["fresh", "pooled"] {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let mut pillion = Pillion::start(&config, [backend.as_endpoint("echo")]).await;
        let address = pillion.address();
        let keep_calling = async || {
            let client = Client::connect(address).await;
            let mut answered = 0;
            loop {
                match client.send(grpc("echo"), b"body").await {
                    Ok(answer) => assert!(answer.is_ok(), "{connection}: {answer:?}"),
                    // A GOAWAY that does not cover the call: the caller may send it elsewhere.
                    Err(error) if error.is_go_away() => return answered,
                    Err(error) => panic!("{connection}: lost after {answered}: {error:?}"),
                }
                answered += 1;
            }
        };
        let (answered, ()) = tokio::join!(join_all((0..8).map(|_| keep_calling())), async {
            let so_far = backend.counts().calls;
            backend.until("calls are going on", |counts| counts.calls > so_far + 100).await;
            pillion.signal(Signal::TERM);
        });
        assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
        assert!(pillion.ended().await.success());
    }
}

/// A backend that ends no call. Where a call has the header `begin` it begins to answer.
async fn endless() -> Backend {
    Backend::start(|mut call: Incoming| async move {
        if !call.head.headers.contains_key("begin") {
            return call.never().await;
        }
        let mut answer = call.begin();
        answer.send_data(Bytes::from(message(b"first")), false).unwrap();
        call.hold(answer).await;
    })
    .await
}

#[tokio::test]
async fn calls_that_do_not_end_are_told_after_drain_timeout_that_the_proxy_stops() {
    for connection in ["fresh", "pooled"] {
        let backend = endless().await;
        let config = format!("drain_timeout = \"300ms\"\n[defaults]\nconnection = {connection:?}");
        let mut pillion = Pillion::start(&config, [backend.as_endpoint("echo")]).await;
        let client = Client::connect(pillion.address()).await;
        let silent = client.begin(grpc("echo")).await;
        let begun = client.begin(grpc_with("echo", &[("begin", "1")])).await;
        let other = client.begin(get("echo")).await;
        let (head, mut body) = soon("its head", begun.answer).await.unwrap().into_parts();
        assert!(soon("a message", body.data()).await.unwrap().is_ok());
        backend.until("all have come", |counts| counts.calls == 3).await;
        pillion.signal(Signal::INT);

        let silent = soon("an answer", Answer::read(silent.answer)).await.unwrap();
        assert!(silent.trailers.is_none(), "{silent:?}");
        assert!(soon("the end", body.data()).await.is_none());
        let trailers = soon("trailers", body.trailers()).await.unwrap();
        let begun = Answer { head, body: Bytes::new(), trailers };
        for answer in [silent, begun] {
            let (status, reason) = (answer.grpc_status(), answer.header("pillion-error"));
            assert_eq!((status, reason), (Some(14), Some("draining")), "{answer:?}");
            let why = answer.header("grpc-message").unwrap();
            assert!(why.contains("drain_timeout"), "{why}");
        }
        let other = soon("an answer", Answer::read(other.answer)).await.unwrap();
        assert_eq!(other.head.status, 503);
        assert_eq!(other.header("pillion-error"), Some("draining"));

        assert!(pillion.ended().await.success());
        backend.until("the calls are cancelled", |counts| counts.cancelled == 3).await;
        assert!(pillion.log().contains("drain_timeout passed"), "{}", pillion.log());
    }
}

#[tokio::test]
async fn grpcio_is_told_after_drain_timeout_that_the_proxy_stops() {
    let backend = endless().await;
    let mut pillion =
        Pillion::start("drain_timeout = \"300ms\"", [backend.as_endpoint("echo")]).await;
    let client = PatientClient::start(pillion.address(), "echo");
    backend.until("both calls have come", |counts| counts.calls == 2).await;
    let told = client.told(|| pillion.signal(Signal::TERM)).await;
    for call in ["unary", "download"] {
        assert_eq!(told[call]["code"], "UNAVAILABLE", "{told}");
        assert_eq!(told[call]["reason"], "draining", "{told}");
        assert!(told[call]["details"].as_str().unwrap().contains("drain_timeout"), "{told}");
    }
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn who_takes_no_answers_does_not_hold_the_exit_after_drain_timeout() {
    let backend = endless().await;
    let mut pillion =
        Pillion::start("drain_timeout = \"300ms\"", [backend.as_endpoint("echo")]).await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(END_STREAM, 1, &grpc_fields("echo"))]).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    pillion.signal(Signal::TERM);
    // Nothing is read, and no PING answered.
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let backend = Backend::start(Incoming::never).await;
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut pillion =
            Pillion::start("drain_timeout = \"1h\"", [backend.as_endpoint("echo")]).await;
        let client = Client::connect(pillion.address()).await;
        let _call = client.begin(grpc("echo")).await;
        backend.until("the call has come", |counts| counts.calls > counts.cancelled).await;
        pillion.signal(first);
        until("it drains", async || pillion.get("/ready").await.status == 503).await;
        pillion.signal(second);
        assert!(pillion.ended().await.success());
    }
}

#[tokio::test]
async fn a_drain_can_be_asked_for_at_the_admin_address() {
    let (backend, go_on) = patient().await;
    let mut pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let call = client.begin(grpc("echo")).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    assert_eq!(pillion.get("/drain").await.status, 405);
    assert_eq!(pillion.ask("POST", "/drain").await.status, 202);
    until("it drains", async || pillion.get("/ready").await.status == 503).await;
    go_on.notify_waiters();
    assert!(soon("an answer", Answer::read(call.answer)).await.unwrap().is_ok());
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn a_caller_that_does_not_heed_goaway_is_refused_and_does_not_hold_the_exit() {
    let (backend, go_on) = patient().await;
    let mut pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(END_STREAM, 1, &grpc_fields("echo"))]).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    pillion.signal(Signal::TERM);
    // The PING that follows is left unanswered, as if the caller had not read it yet.
    wire.until(&[GOAWAY]).await.unwrap();
    // As late as no call can be that was on its way when the caller was told.
    sleep(Duration::from_millis(2_500)).await;
    wire.send(&[Frame::headers(END_STREAM, 3, &grpc_fields("echo"))]).await;
    let refused = [("error", "draining"), ("grpc_status", "UNAVAILABLE")];
    pillion.until_metrics("it is refused", |m| m.sum("requests_total", &refused) == 1.0).await;
    go_on.notify_waiters();
    let answer = wire.answer(1).await;
    assert!(answer.last().is_some_and(|last| last.kind == HEADERS && last.ends_stream()));
    assert!(pillion.ended().await.success());
    assert_eq!(backend.counts().calls, 1);
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_exit_whether_they_answer_or_not() {
    let mut pillion = Pillion::start("drain_timeout = \"1h\"", []).await;
    let _silent = Wire::connect(pillion.address()).await;
    // One that has not even sent its preface, and one of the admin address.
    let _mute = TcpStream::connect(pillion.address()).await.unwrap();
    let _operator = TcpStream::connect(pillion.admin()).await.unwrap();
    let mut polite = Client::connect(pillion.address()).await;
    until("all are accepted", async || {
        pillion.metrics().await.sum("downstream_connections", &[]) == 3.0
    })
    .await;
    pillion.signal(Signal::TERM);
    polite.ended().await.unwrap();
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn a_unix_listener_serves_and_its_file_goes_with_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pillion.sock");
    let address = format!("unix:{}", path.display());
    let backend = Backend::echo().await;
    // A file that a killed program left behind is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let program = Program::new("").endpoints([backend.as_endpoint("echo")]);
    let mut pillion = program.listen(&address).listen("127.0.0.1:0").start().await;
    let client = Client::connect_unix(&path).await;
    assert!(client.call("echo").await.is_ok());
    let listener = [("listener", &*address)];
    assert_eq!(pillion.metrics().await.sum("downstream_connections", &listener), 1.0);
    pillion.signal(Signal::TERM);
    assert!(pillion.ended().await.success());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_reset_caller_in_a_drain_frees_the_exit() {
    let backend = Backend::start(Incoming::never).await;
    let mut pillion = Pillion::start("drain_timeout = \"1h\"", [backend.as_endpoint("echo")]).await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(END_STREAM, 1, &grpc_fields("echo"))]).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    pillion.signal(Signal::TERM);
    wire.until(&[GOAWAY]).await.unwrap();
    wire.send(&[Frame::new(RST_STREAM, 0, 1, &8_u32.to_be_bytes())]).await;
    while wire.receive().await.is_some() {}
    assert!(pillion.ended().await.success());
}
