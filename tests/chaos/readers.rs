//! Clients that ask for much and read nothing of it: one, and so many that there is no memory for them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use crate::backend::{Backend, Incoming, send_all, trailers};
use crate::cgroup::Group;
use crate::client::{Client, grpc};
use crate::flow::Flow;
use crate::program::{Pillion, Program};
use crate::raw::{DATA, END_STREAM, Frame, HEADERS, SETTINGS, Wire, grpc_fields};
use crate::wait::{stall, until};

const MIB: usize = 1 << 20;
/// What is asked for.
const MUCH: usize = 64 * MIB;

/// An endpoint that answers every call of `/much` with [`MUCH`] bytes and echoes others; what it has sent.
async fn much() -> (Backend, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let backend = Backend::start(move |mut call: Incoming| {
        let sent = Arc::clone(&counter);
        async move {
            if call.head.uri.path() != "/much" {
                return call.echo().await;
            }
            let mut down = call.begin();
            let piece = Bytes::from_static(&[7; 64 << 10]);
            for _ in 0..MUCH / piece.len() {
                if send_all(&mut down, piece.clone()).await.is_err() {
                    return;
                }
                sent.fetch_add(piece.len(), Relaxed);
            }
            let _ = down.send_trailers(trailers(0));
        }
    })
    .await;
    (backend, sent)
}

/// The head of a call of `/much`, whole.
fn ask(stream: u32) -> Frame {
    let fields = grpc_fields("orders").map(|(name, value)| match name {
        ":path" => (name, "/much"),
        _ => (name, value),
    });
    Frame::headers(END_STREAM, stream, &fields)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_holds_up_its_own_answer_and_nobody_else() {
    for connection in ["fresh", "pooled"] {
        let (backend, sent) = much().await;
        let config = format!("[defaults]\nconnection = {connection:?}");
        let pillion = Pillion::start(&config, [backend.as_endpoint("orders")]).await;
        let flow = Flow::start(&pillion, "orders").await;
        let (before, _) = pillion.memory();
        // No window stands in the way; only its socket fills.
        let mut wire = Wire::connect(pillion.address()).await;
        let wide = Frame::new(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        wire.send(&[wide, Frame::window_update(0, 0x7fff_0000), ask(1)]).await;
        let held = stall(&sent).await;
        // Mostly in the system's buffers of two connections.
        assert!(held < MUCH / 2, "{connection}: {} MiB are on their way", held / MIB);
        // The others share worker, endpoint, and where it is pooled the connection.
        for _ in 0..5 {
            flow.more().await;
        }
        assert_eq!(sent.load(Relaxed), held, "{connection}");
        let grown = pillion.memory().1.saturating_sub(before) >> 20;
        assert!(grown < 8, "{connection}: grew by {grown} MiB");
        let mut received = 0;
        while let Some(frame) = wire.until(&[DATA, HEADERS]).await {
            received += if frame.kind == DATA { frame.payload.len() } else { 0 };
            if frame.ends_stream() {
                break;
            }
        }
        assert_eq!(received, MUCH, "{connection}");
        flow.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_small_control_group_clients_that_read_nothing_are_shed_and_nothing_is_killed() {
    const LIMIT: usize = 128 * MIB;
    let limit = LIMIT.to_string();
    let group = match Group::new("memory", &[("memory.limit_in_bytes", &limit)]) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let (backend, _) = much().await;
    let by = group.by();
    // On a busy machine an endpoint that is well takes its time as well.
    let mut pillion = Program::new("[defaults]\nconnect_timeout = \"20s\"")
        .endpoints([backend.as_endpoint("orders")])
        .by(&by.each_ref().map(String::as_str))
        .start()
        .await;
    let told = pillion.metrics().await.sum("memory_limit_bytes", &[]);
    assert_eq!(told, (LIMIT / 10 * 9) as f64, "it knows its group");
    let shed = async || {
        let limited = [("reason", "max_memory")];
        pillion.metrics().await.sum("downstream_limited_total", &limited)
    };
    // 100 clients of 100 calls each would hold 600 MiB, were they let.
    let mut wires = Vec::new();
    for number in 0..100 {
        let Some(mut wire) = Wire::try_connect(pillion.address()).await else { continue };
        let calls: Vec<_> = (0..100).map(|at| ask(2 * at + 1)).collect();
        let _ = wire.pass(&calls).await;
        wires.push(wire);
        // Who comes in between is answered, or told why not.
        if number % 10 == 0 {
            let client = Client::connect(pillion.address()).await;
            if let Ok(answer) = client.send(grpc("orders"), b"hello").await {
                let overloaded = answer.header("pillion-error") == Some("overloaded");
                assert!(answer.is_ok() || overloaded, "{answer:?}");
            }
        }
    }
    assert!(shed().await > 0.0, "it was never in trouble, with {} MiB", pillion.memory().1 >> 20);
    let control = fs::read_to_string(group.path("memory.oom_control")).unwrap();
    assert!(control.lines().any(|line| line == "oom_kill 0"), "{control}");
    drop(wires);
    until("calls are taken again", async || {
        let client = Client::connect(pillion.address()).await;
        client.send(grpc("orders"), b"hello").await.is_ok_and(|answer| answer.is_ok())
    })
    .await;
    pillion.until_metrics("it is calm", |m| m.sum("memory_stage", &[]) == 0.0).await;
    assert!(!pillion.has_ended());
    drop(pillion);
}
