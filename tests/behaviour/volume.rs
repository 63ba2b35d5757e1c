//! Much at once: large metadata and messages, long streams, many streams and connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{client, server};
use http::Response;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

use crate::backend::{Backend, Incoming, send_all, trailers};
use crate::client::{Answer, Client, grpc, grpc_with, message};
use crate::program::{Pillion, Program};
use crate::wait::{soon, stall};

const MIB: usize = 1 << 20;
/// How much a stream of any length may add to the memory of the process.
const GROWTH: u64 = 8 << 20;
/// What passes in one long stream: the memory that it takes is decided by windows and buffers, which
/// the first few MiB fill. A gibibyte would prove no more and takes a quarter of a minute, so it is
/// for those who ask.
const LONG: usize = 256 * MIB;
const LONGER: usize = 1024 * MIB;

/// How much the process grows at most while `work` is done, in bytes.
async fn growth(pillion: &Pillion, work: impl Future<Output = ()>) -> u64 {
    let (before, _) = pillion.memory();
    work.await;
    let (_, most) = pillion.memory();
    most.saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_to_a_slow_reader_is_never_held() {
    stream_down(LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_to_a_slow_reader_is_never_held() {
    stream_up(LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute; `make test-long`"]
async fn a_gibibyte_to_a_slow_reader_is_never_held_in_either_direction() {
    stream_down(LONGER).await;
    stream_up(LONGER).await;
}

async fn stream_down(size: usize) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let backend = Backend::start(move |mut call: Incoming| {
        let sent = Arc::clone(&counter);
        async move {
            let mut down = call.begin();
            let piece = Bytes::from(vec![7; 64 << 10]);
            while sent.fetch_add(piece.len(), Relaxed) < size {
                send_all(&mut down, piece.clone()).await.unwrap();
            }
            down.send_trailers(trailers(0)).unwrap();
        }
    })
    .await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect_with(pillion.address(), &client::Builder::new()).await;
    let growth = growth(&pillion, async {
        let call = client.begin(grpc("echo")).await;
        let mut body = soon("the head", call.answer).await.unwrap().into_body();
        // Nobody reads: the endpoint is held back.
        let held = stall(&sent).await;
        assert!(held < 4 * MIB, "{held} bytes are on their way");
        let mut received = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap().len();
            body.flow_control().release_capacity(piece).unwrap();
            received += piece;
            // Slower than the endpoint could send.
            if received / (64 * MIB) > (received - piece) / (64 * MIB) {
                sleep(Duration::from_millis(50)).await;
            }
        }
        assert_eq!(received, size);
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    })
    .await;
    assert!(growth < GROWTH, "grew by {growth} bytes");
}

async fn stream_up(size: usize) {
    let go_on = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&go_on);
    let backend = Backend::start(move |mut call: Incoming| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            let mut received = 0;
            while let Some(Ok(piece)) = call.body.data().await {
                call.body.flow_control().release_capacity(piece.len()).unwrap();
                received += piece.len();
                if received / (64 * MIB) > (received - piece.len()) / (64 * MIB) {
                    sleep(Duration::from_millis(50)).await;
                }
            }
            let mut down = call.begin();
            down.send_data(Bytes::from(received.to_string()), false).unwrap();
            down.send_trailers(trailers(0)).unwrap();
        }
    })
    .await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let growth = growth(&pillion, async {
        let mut call = client.begin(grpc("echo")).await;
        let sent = Arc::new(AtomicUsize::new(0));
        let sending = async {
            let piece = Bytes::from(vec![7; 64 << 10]);
            while sent.fetch_add(piece.len(), Relaxed) < size {
                send_all(&mut call.body, piece.clone()).await.unwrap();
            }
            call.body.send_data(Bytes::new(), true).unwrap();
        };
        let watching = async {
            let held = stall(&sent).await;
            assert!(held < 4 * MIB, "{held} bytes are on their way");
            go_on.notify_one();
        };
        tokio::join!(sending, watching);
        let answer = soon("the answer", Answer::read(call.answer)).await.unwrap();
        assert_eq!(answer.body, size.to_string());
    })
    .await;
    assert!(growth < GROWTH, "grew by {growth} bytes");
}

#[tokio::test]
async fn metadata_of_a_mebibyte_are_refused_for_that_call_alone() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let mut sibling = client.begin(grpc("echo")).await;
    sibling.body.send_data(Bytes::from_static(b"before, "), false).unwrap();
    for (bytes, status, grpc_status) in [
        (48 << 10, 200, Some(0)),
        (96 << 10, 200, Some(8)),
        (960 << 10, 200, Some(8)),
        (MIB, 431, None),
    ] {
        let piece = "x".repeat(16 << 10);
        let metadata = vec![("large", &*piece); bytes / piece.len()];
        let answer = client.send(grpc_with("echo", &metadata), &message(b"")).await.unwrap();
        assert_eq!(
            (answer.head.status.as_u16(), answer.grpc_status()),
            (status, grpc_status),
            "{bytes} bytes"
        );
        let refused = (grpc_status == Some(8)).then_some("overloaded");
        assert_eq!(answer.header("pillion-error"), refused);
    }
    sibling.body.send_data(Bytes::from_static(b"after"), true).unwrap();
    let answer = soon("the sibling", Answer::read(sibling.answer)).await.unwrap();
    assert_eq!((&*answer.body, answer.grpc_status()), (&b"before, after"[..], Some(0)));
}

#[tokio::test]
async fn an_answer_with_a_mebibyte_of_metadata_fails_that_call_alone() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let size: usize = call.head.headers["size"].to_str().unwrap().parse().unwrap();
        call.read().await.unwrap();
        let mut head = Response::new(());
        for _ in 0..size >> 14 {
            head.headers_mut().append("large", "x".repeat(1 << 14).parse().unwrap());
        }
        let mut down = call.begin_with(head, false);
        down.send_data(Bytes::from_static(b"answered"), false).unwrap();
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let config = "[defaults]\nconnection = \"pooled\"";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let builder = client::Builder::new().max_header_list_size(8 << 20).clone();
    let client = Client::connect_with(pillion.address(), &builder).await;
    let mut sibling = client.begin(grpc_with("echo", &[("size", "0")])).await;
    backend.until("the sibling has come", |counts| counts.calls == 1).await;
    for (size, passes) in [("100000", true), ("1048576", false), ("1200000", false)] {
        let answer = client.send(grpc_with("echo", &[("size", size)]), b"").await;
        assert_eq!(answer.is_ok_and(|answer| answer.is_ok()), passes, "{size}");
    }
    sibling.body.send_data(Bytes::new(), true).unwrap();
    let answer = soon("the sibling", Answer::read(sibling.answer)).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(backend.counts().accepted, 1);
}

#[tokio::test]
async fn three_hundred_calls_are_open_at_once_on_one_connection() {
    let backend = Backend::start_with(
        server::Builder::new().max_concurrent_streams(40),
        |mut call: Incoming| async move {
            let mut down = call.begin();
            let asked = call.read().await.unwrap();
            down.send_data(asked, false).unwrap();
            down.send_trailers(trailers(0)).unwrap();
        },
    )
    .await;
    for connection in ["fresh", "pooled"] {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [backend.as_endpoint("echo")]).await;
        let client = Client::connect(pillion.address()).await;
        let mut open = Vec::new();
        for _ in 0..300 {
            open.push(client.begin(grpc("echo")).await);
        }
        let mut answered = Vec::new();
        for call in &mut open {
            // Each is answered while all are open.
            let head = soon("the head", &mut call.answer).await.unwrap();
            assert_eq!(head.headers().get("grpc-status"), None);
            answered.push(head);
        }
        let in_flight = pillion.metrics().await.sum("requests_in_flight", &[("service", "echo")]);
        assert_eq!(in_flight, 300.0);
        for (mut call, answer) in open.into_iter().zip(answered) {
            call.body.send_data(Bytes::from_static(b"hello"), true).unwrap();
            let mut body = answer.into_body();
            assert_eq!(soon("the body", body.data()).await.unwrap().unwrap(), "hello");
            assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        }
    }
}

#[tokio::test]
async fn two_thousand_connections_are_served_at_once() {
    raise_our_file_limit();
    let backend = Backend::echo().await;
    let config = "[defaults]\nconnection = \"pooled\"";
    let program = Program::new(config).endpoints([backend.as_endpoint("echo")]);
    // As a shell would start it. It may have more files, and takes them.
    let shell = ["sh", "-c", "ulimit -S -n 256 && exec \"$0\" \"$@\""];
    let pillion = program.by(&shell).start().await;
    let mut clients = Vec::new();
    for _ in 0..2_000 {
        clients.push(Client::connect(pillion.address()).await);
    }
    for client in &clients {
        assert!(client.call("echo").await.is_ok());
    }
    let open = |metrics: &crate::metrics::Metrics| metrics.sum("downstream_connections", &[]);
    assert_eq!(open(&pillion.metrics().await), 2_000.0);
    drop(clients);
    pillion.until_metrics("all are closed", |metrics| open(metrics) == 0.0).await;
}

fn raise_our_file_limit() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
}
