//! Endpoints that attack whoever calls them: the call fails, and nothing else does.

use std::{net::SocketAddr, sync::Arc};

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::program::endpoint;
use crate::raw::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    PUSH_PROMISE, SETTINGS, Wire, header_block, packed_block, serve,
};
use crate::scene::{endures, proxy};
use crate::wait::soon;

const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// An endpoint that pours what is made for a call's stream onto its connection.
async fn pouring(pour: impl Fn(u32) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let pour = Arc::new(pour);
    serve(move |mut wire: Wire| {
        let pour = Arc::clone(&pour);
        async move {
            if let Some(head) = wire.until(&[HEADERS]).await {
                let _ = wire.flood(pour(head.stream)).await;
            }
        }
    })
    .await
}

/// Calls an endpoint that does so, on a connection of its own and on a shared one: each call ends, and with
/// an error of the proxy's.
async fn fails(pour: impl Fn(u32) -> Vec<Vec<u8>> + Send + Sync + 'static) {
    let address = pouring(pour).await;
    let backend = Backend::echo().await;
    let tables = "[service.pooled]\nconnection = \"pooled\"\n[defaults]\ntimeout = \"3s\"";
    let endpoints = ["fresh", "pooled"].map(|service| endpoint(service, address, ""));
    let endpoints = endpoints.into_iter().chain([backend.as_endpoint("echo")]);
    let mut pillion = proxy("", tables, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let calls = endures(&mut pillion, async {
        for service in ["fresh", "pooled"] {
            let answer = soon("an end", client.call(service)).await;
            assert!(answer.header("pillion-error").is_some(), "{service}: {answer:?}");
        }
    });
    calls.await;
}

#[tokio::test]
async fn an_answer_whose_head_never_ends_fails_its_call() {
    for block in [vec![], header_block(&[("x-more", &"y".repeat(16_000))])] {
        fails(move |stream| {
            let first = Frame::new(HEADERS, 0, stream, &header_block(&OK)).bytes();
            let more = Frame::new(CONTINUATION, 0, stream, &block).times(4_000);
            [first].into_iter().chain(more).collect()
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_with_a_head_of_megabytes_fails_its_call() {
    fails(|stream| {
        let block = header_block(&[("x-more", &"y".repeat(16_000))]);
        let mut frames = vec![Frame::new(HEADERS, 0, stream, &header_block(&OK))];
        frames.extend((0..100).map(|_| Frame::new(CONTINUATION, 0, stream, &block)));
        frames.push(Frame::new(CONTINUATION, END_HEADERS, stream, b""));
        frames.iter().map(Frame::bytes).collect()
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_unpacks_to_megabytes_fails_its_call() {
    fails(|stream| {
        let block = packed_block(&OK, ("x-bomb", &"b".repeat(4_000)), true, 11_000);
        vec![Frame::new(HEADERS, END_HEADERS, stream, &block).bytes()]
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_pings_settings_or_priorities_instead_of_a_head_ends_in_time() {
    for frame in [
        Frame::new(PING, 0, 0, b"flooding"),
        Frame::new(PING, ACK, 0, b"flooding"),
        Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        Frame::new(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]),
        Frame::window_update(0, 1),
        Frame::new(0xbe, 0, 0, b"who knows"),
    ] {
        fails(move |_| frame.times(100_000)).await;
    }
}

#[tokio::test]
async fn an_answer_of_empty_data_fails_its_call() {
    fails(|stream| {
        let head = Frame::headers(0, stream, &OK).bytes();
        [head].into_iter().chain(Frame::data(0, stream, b"").times(100_000)).collect()
    })
    .await;
}

#[tokio::test]
async fn a_promise_of_what_nobody_asked_for_fails_its_call() {
    fails(|stream| {
        let promised = [&2u32.to_be_bytes()[..], &header_block(&OK)].concat();
        vec![Frame::new(PUSH_PROMISE, END_HEADERS, stream, &promised).bytes()]
    })
    .await;
}

#[tokio::test]
async fn endpoints_that_only_say_goodbye_fail_their_calls() {
    let goodbyes: [fn(u32) -> Vec<Frame>; 5] = [
        |_| vec![Frame::go_away(0, 0)],
        |_| vec![Frame::go_away(0, 0xb)],
        |stream| vec![Frame::go_away(0, 0), Frame::go_away(stream, 0)],
        |stream| {
            (0..100).map(|_| Frame::go_away(stream, 0)).chain([Frame::reset(stream, 7)]).collect()
        },
        |stream| vec![Frame::headers(0, stream, &OK), Frame::go_away(0, 2)],
    ];
    for goodbye in goodbyes {
        fails(move |stream| goodbye(stream).iter().map(Frame::bytes).collect()).await;
    }
}

#[tokio::test]
async fn answers_to_streams_that_were_never_opened_fail_their_call() {
    fails(|stream| vec![Frame::headers(END_STREAM, stream + 20, &OK).bytes()]).await;
    fails(|_| vec![Frame::data(0, 2, b"even").bytes()]).await;
    fails(|stream| vec![Frame::new(GOAWAY, 0, stream, &[0; 8]).bytes()]).await;
}

#[tokio::test]
async fn an_endpoint_that_sends_more_than_it_may_fails_its_call() {
    // Beyond the window of the stream, for a caller that does not read: what is wrong shows where it does.
    let address = pouring(|stream| {
        let head = Frame::headers(0, stream, &OK[..1]).bytes();
        [head].into_iter().chain(Frame::data(0, stream, &[7; 16_000]).times(1_000)).collect()
    })
    .await;
    let backend = Backend::echo().await;
    let endpoints = [endpoint("much", address, ""), backend.as_endpoint("echo")];
    let mut pillion = proxy("stall_timeout = \"1s\"", "", endpoints).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let client = Client::connect_with(pillion.address(), &builder).await;
    let answer = endures(&mut pillion, async {
        let call = client.begin(get("much")).await;
        let body = soon("a head", call.answer).await.unwrap().into_body();
        let mut body = body;
        soon("an end", body.data()).await.unwrap().unwrap_err()
    });
    assert!(answer.await.is_reset());
}
