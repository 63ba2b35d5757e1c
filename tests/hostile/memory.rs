//! More than fits into memory: the program refuses and ends what it must, and is never the process that the
//! kernel ends.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::backend::{Backend, Incoming};
use crate::client::Client;
use crate::program::{Pillion, Program};
use crate::raw::{
    END_HEADERS, END_STREAM, Frame, HEADERS, SETTINGS, Wire, grpc_fields, packed_block,
};
use crate::wait::until;

const MIB: u64 = 1 << 20;
const MAX: u64 = 96 * MIB;

async fn small(endpoints: impl IntoIterator<Item = String>) -> Pillion {
    let config = "max_memory = \"96MiB\"\n";
    Program::new(config).endpoints(endpoints).start().await
}

/// Goes on with `each` client until the proxy is in trouble, and waits until it has helped itself.
async fn overwhelms<F>(pillion: &mut Pillion, each: impl Fn() -> F)
where
    F: Future<Output = Option<Wire>>,
{
    let mut wires = Vec::new();
    let mut relieved = false;
    for _ in 0..400 {
        wires.extend(each().await);
        if wires.len() % 10 == 0 {
            let metrics = pillion.metrics().await;
            let refused = metrics.sum("downstream_limited_total", &[("reason", "max_memory")]);
            relieved |= refused > 0.0;
            let (_, most) = pillion.memory();
            assert!(most < MAX + MAX / 4, "{} MiB", most / MIB);
        }
        if relieved && wires.len() >= 150 {
            break;
        }
    }
    assert!(relieved, "it was never in trouble, with {} MiB", pillion.memory().1 / MIB);
    sleep(Duration::from_millis(500)).await;
    assert!(!pillion.has_ended());
    let (_, most) = pillion.memory();
    assert!(most < MAX + MAX / 4, "{} MiB", most / MIB);
    drop(wires);
    until("calls are taken again", async || {
        let client = Client::connect(pillion.address()).await;
        client.send(crate::client::grpc("echo"), b"").await.is_ok_and(|answer| answer.is_ok())
    })
    .await;
    pillion.until_metrics("it is calm", |m| m.sum("memory_stage", &[]) == 0.0).await;
}

#[tokio::test]
async fn clients_that_take_nothing_by_the_hundred_do_not_fill_the_memory() {
    let much = Backend::start(|mut call: Incoming| async move {
        let mut answer = call.begin();
        let _ = answer.send_data(Bytes::from_static(&[7; 1 << 20]), true);
        let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
    })
    .await;
    let echo = Backend::echo().await;
    let mut pillion = small([much.as_endpoint("much"), echo.as_endpoint("echo")]).await;
    let address = pillion.address();
    overwhelms(&mut pillion, || async move {
        let mut wire = Wire::try_connect(address).await?;
        let head = |at: u32| Frame::headers(END_STREAM, 2 * at + 1, &grpc_fields("much"));
        let closed = Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let _ = wire.pass(&[vec![closed], (0..20).map(head).collect()].concat()).await;
        Some(wire)
    })
    .await;
}

#[tokio::test]
async fn heads_that_unpack_and_calls_that_never_end_do_not_fill_the_memory() {
    let echo = Backend::echo().await;
    let mut pillion = small([echo.as_endpoint("echo")]).await;
    let address = pillion.address();
    overwhelms(&mut pillion, || async move {
        let mut wire = Wire::try_connect(address).await?;
        for batch in 0..4 {
            let heads = (0..25).map(|at| {
                let stream = 2 * (25 * batch + at) + 1;
                let bomb = ("x-bomb", &*"b".repeat(4_000));
                let block = packed_block(&grpc_fields("echo"), bomb, stream == 1, 15);
                Frame::new(HEADERS, END_HEADERS, stream, &block)
            });
            let _ = wire.pass(&heads.collect::<Vec<_>>()).await;
        }
        Some(wire)
    })
    .await;
}
