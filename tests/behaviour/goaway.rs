//! GOAWAY: from either side, and without a lost call.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, grpc};
use crate::program::{Pillion, endpoint};
use crate::raw::{DATA, END_STREAM, Frame, GOAWAY, HEADERS, Wire, grpc_fields, serve};
use crate::wait::soon;

const POOLED: &str = "[defaults]\nconnection = \"pooled\"";

#[tokio::test]
async fn an_endpoint_that_says_goaway_again_and_again_costs_no_call() {
    let backend = Backend::echo().await;
    for connection in ["fresh", "warm", "pooled"] {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [backend.as_endpoint("echo")]).await;
        let client = Client::connect(pillion.address()).await;
        for round in 0..30 {
            let calls = (0..8).map(|_| client.call("echo"));
            let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), async {
                // Somewhere between the calls, and every time elsewhere.
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
                backend.go_away();
            });
            assert!(answers.iter().all(Answer::is_ok), "{connection}: {answers:?}");
        }
    }
}

#[tokio::test]
async fn calls_that_a_goaway_covers_end_where_they_are_and_later_ones_on_a_new_connection() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        call.read().await.unwrap();
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let pillion = Pillion::start(POOLED, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let mut open = client.begin(grpc("echo")).await;
    let answer = soon("the head", open.answer).await.unwrap();
    backend.go_away();
    // A call after it may meet the old connection, and is then refused and sent again.
    assert!(client.call("echo").await.is_ok());
    let counts = backend.counts();
    assert_eq!((counts.accepted, counts.open), (2, 2), "the old one stays for its call");
    open.body.send_data(Bytes::new(), true).unwrap();
    let mut body = answer.into_body();
    assert!(soon("the body", body.data()).await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    backend.until("the old connection is closed", |counts| counts.open == 1).await;
}

const ANSWER: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
const OK: [(&str, &str); 1] = [("grpc-status", "0")];

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_is_sent_again_with_its_body() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    // The first connection takes stream 1 and disowns stream 3; the second answers.
    let address = serve(move |mut wire| {
        let is_first = count.fetch_add(1, Relaxed) == 0;
        async move {
            let mut streams = Vec::new();
            while let Some(frame) = wire.until(&[HEADERS, DATA]).await {
                if !frame.ends_stream() {
                    continue;
                }
                streams.push(frame.stream);
                if is_first && streams.len() < 2 {
                    continue;
                }
                if is_first {
                    wire.send(&[Frame::go_away(streams[0], 0)]).await;
                }
                let answered = if is_first { streams[0] } else { frame.stream };
                wire.send(&[
                    Frame::headers(0, answered, &ANSWER),
                    Frame::data(0, answered, &frame.payload),
                    Frame::headers(END_STREAM, answered, &OK),
                ])
                .await;
            }
        }
    })
    .await;
    let pillion = Pillion::start(POOLED, [endpoint("echo", address, "")]).await;
    let client = Client::connect(pillion.address()).await;
    let calls = [client.send(grpc("echo"), b"body"), client.send(grpc("echo"), b"body")];
    let answers = soon("both answers", futures_util::future::join_all(calls)).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!((&*answer.body, answer.grpc_status()), (&b"body"[..], Some(0)));
    }
    assert_eq!(connections.load(Relaxed), 2);
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("retries_total", &[("service", "echo"), ("reason", "refused")]), 1.0);
}

#[tokio::test]
async fn an_endpoint_that_says_goaway_to_every_connection_is_given_up() {
    let address = serve(|mut wire| async move {
        wire.send(&[Frame::go_away(0, 0)]).await;
        while wire.receive().await.is_some() {}
    })
    .await;
    for connection in ["fresh", "warm", "pooled"] {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [endpoint("echo", address, "")]).await;
        let client = Client::connect(pillion.address()).await;
        for _ in 0..10 {
            let answer = client.call("echo").await;
            let error = answer.header("pillion-error");
            assert_eq!((answer.grpc_status(), error), (Some(14), Some("connect_failed")));
        }
        let opened = pillion.metrics().await.sum("upstream_connections_opened_total", &[]);
        assert!(opened <= 60.0, "{connection}: {opened} connections for 10 calls");
    }
}

#[tokio::test]
async fn the_calls_of_a_caller_that_says_goaway_are_finished() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(0, 1, &grpc_fields("echo"))]).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;
    wire.send(&[Frame::go_away(0, 0), Frame::data(END_STREAM, 1, b"body")]).await;
    let answer = wire.answer(1).await;
    assert!(answer.iter().any(|frame| frame.kind == DATA && frame.payload == b"body"));
    assert!(answer.last().unwrap().ends_stream());
    // And then the connection is closed.
    while let Some(frame) = wire.receive().await {
        assert!(frame.kind != GOAWAY || frame.code() == 0);
    }
}
