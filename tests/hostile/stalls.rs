//! Answers that are asked for and not taken.

use std::time::Duration;

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::backend::{Backend, Incoming, trailers};
use crate::program::Pillion;
use crate::raw::{
    DATA, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, SETTINGS, Wire, grpc_fields,
};
use crate::scene::{ENHANCE_YOUR_CALM, Scene, endures, proxy};

/// An endpoint `much` whose answers have this size, one `echo`, and a proxy to both.
async fn giving(size: usize, limits: &str, tables: &str) -> (Backend, Backend, Pillion) {
    let body = Bytes::from(vec![7; size]);
    let much = Backend::start(move |mut call: Incoming| {
        let body = body.clone();
        async move {
            let mut answer = call.begin();
            let sent = answer.send_data(body, false);
            let _ = sent.and_then(|()| answer.send_trailers(trailers(0)));
            // Until the caller has it, or goes away.
            let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
        }
    })
    .await;
    let echo = Backend::echo().await;
    let pillion = proxy(limits, tables, [much.as_endpoint("much"), echo.as_endpoint("echo")]).await;
    (much, echo, pillion)
}

/// A client that lets nothing be sent on its streams, and asks for so many answers.
async fn closed(pillion: &Pillion, calls: u32) -> Wire {
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])]).await;
    ask(&mut wire, calls).await;
    wire
}

async fn ask(wire: &mut Wire, calls: u32) {
    let head = |at: u32| Frame::headers(END_STREAM, 2 * at + 1, &grpc_fields("much"));
    wire.send(&(0..calls).map(head).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_in_time_and_its_neighbours_go_on() {
    for tables in ["", "[defaults]\nconnection = \"pooled\""] {
        let (_much, _echo, mut pillion) =
            giving(1 << 20, "stall_timeout = \"500ms\"", tables).await;
        let mut wire = closed(&pillion, 1).await;
        let ended = endures(&mut pillion, async {
            let reset = wire.until(&[RST_STREAM]).await.unwrap();
            assert_eq!((reset.stream, reset.code()), (1, ENHANCE_YOUR_CALM));
        });
        ended.await;
        wire.send(&[Frame::headers(END_STREAM, 3, &grpc_fields("echo"))]).await;
        let answer = wire.answer(3).await;
        assert!(answer.last().is_some_and(|last| last.kind == HEADERS), "{answer:?}");
        let so = |m: &crate::metrics::Metrics| {
            m.sum("downstream_limited_total", &[("reason", "stall_timeout")]) == 1.0
        };
        pillion.until_metrics("it is counted", so).await;
    }
}

#[tokio::test]
async fn an_application_that_takes_its_answer_slowly_is_waited_for() {
    let (_much, _echo, pillion) = giving(1 << 20, "stall_timeout = \"2s\"", "").await;
    let mut wire = closed(&pillion, 1).await;
    for _ in 0..30 {
        wire.send(&[Frame::window_update(0, 16_000), Frame::window_update(1, 16_000)]).await;
        let piece = wire.until(&[DATA, RST_STREAM, GOAWAY]).await.unwrap();
        assert_eq!(piece.kind, DATA, "{piece:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_connection_that_takes_no_byte_ends_in_time() {
    let limits = "stall_timeout = \"500ms\"";
    let (_much, _echo, mut pillion) = giving(8 << 20, limits, "").await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[
        Frame::new(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        Frame::window_update(0, 0x7fff_0000),
    ])
    .await;
    ask(&mut wire, 20).await;
    let so = |m: &crate::metrics::Metrics| {
        m.sum("downstream_limited_total", &[("reason", "stall_timeout")]) >= 1.0
            && m.sum("downstream_connections", &[]) == 0.0
    };
    pillion.until_metrics("its connection has ended", so).await;
    assert!(!pillion.has_ended());
}

#[tokio::test]
async fn small_answers_that_are_not_taken_end_with_their_connection() {
    let (_much, _echo, mut pillion) = giving(1_000, "stall_timeout = \"500ms\"", "").await;
    let mut wire = closed(&pillion, 300).await;
    let ended = endures(&mut pillion, async {
        let told = wire.until(&[GOAWAY]).await.unwrap();
        assert_eq!(told.code(), ENHANCE_YOUR_CALM);
    });
    ended.await;
}

#[tokio::test]
async fn the_call_that_brings_more_than_may_wait_is_ended() {
    // Half of it, on shared connections.
    let limits = "max_buffered = \"2MiB\"";
    let shared = "[defaults]\nconnection = \"pooled\"";
    let (_much, _echo, mut pillion) = giving(200_000, limits, shared).await;
    // As many as fit.
    let _few = closed(&pillion, 4).await;
    let mut wire = closed(&pillion, 30).await;
    let ended = endures_with_calls(&mut pillion, async {
        let reset = wire.until(&[RST_STREAM]).await.unwrap();
        assert_eq!(reset.code(), ENHANCE_YOUR_CALM);
    });
    ended.await;
    let so = |m: &crate::metrics::Metrics| {
        m.sum("downstream_limited_total", &[("reason", "max_buffered")]) >= 18.0
    };
    pillion.until_metrics("those that are too many have ended", so).await;
    // The eight that fit wait, for as long as they may.
    let left = pillion.metrics().await.sum("requests_in_flight", &[("service", "much")]);
    assert!((4.0 + 6.0..=4.0 + 12.0).contains(&left), "{left}");
}

#[tokio::test]
async fn answers_wait_with_their_endpoints_where_much_waits_already_and_come_whole() {
    const CALLS: u32 = 60;
    const SIZE: usize = 1 << 20;
    let (_much, _echo, mut pillion) = giving(SIZE, "max_buffered = \"4MiB\"", "").await;
    let before = pillion.memory().0;
    let mut wire = closed(&pillion, CALLS).await;
    let begun = endures_with_calls(&mut pillion, async {
        for _ in 0..CALLS {
            wire.until(&[HEADERS]).await.unwrap();
        }
    });
    begun.await;
    // What may come without anything to hold it back is 15 MiB.
    let grown = pillion.memory().1 - before;
    assert!(grown < 12 << 20, "it grew by {} KiB", grown >> 10);
    let open = Frame::new(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    wire.send(&[open, Frame::window_update(0, 0x7fff_0000)]).await;
    let mut bytes = 0;
    let mut ends = 0;
    while ends < CALLS {
        let frame = wire.until(&[DATA, HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        assert!(matches!(frame.kind, DATA | HEADERS), "{frame:?}");
        bytes += if frame.kind == DATA { frame.payload.len() } else { 0 };
        ends += u32::from(frame.ends_stream());
    }
    assert_eq!(bytes, CALLS as usize * SIZE);
}

#[tokio::test]
async fn a_thousand_answers_that_nobody_reads_do_not_fill_the_memory() {
    const CALLS: u32 = 1_000;
    for tables in ["", "[defaults]\nconnection = \"pooled\""] {
        let (much, _echo, mut pillion) = giving(1 << 20, "", tables).await;
        let mut wire = Wire::connect(pillion.address()).await;
        let wide = Frame::new(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        wire.send(&[wide, Frame::window_update(0, 0x7fff_0000)]).await;
        let before = pillion.memory().0;
        let asked = endures_with_calls(&mut pillion, async {
            ask(&mut wire, CALLS).await;
            until_no_more_come(&much).await;
        });
        asked.await;
        let grown = pillion.memory().1 - before;
        eprintln!("GREW {tables:?} {} KiB", grown >> 10);
        // 15 and 20 MiB; what may come of each on a shared connection, 128 KiB, is an eighth of a gigabyte.
        assert!(grown < 32 << 20, "it grew by {} KiB", grown >> 10);
    }
}

/// Waits until all calls have come that will: those of an application that does not read are not all read.
async fn until_no_more_come(backend: &Backend) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let calls = backend.counts().calls;
        if calls > 0 && calls == last {
            return;
        }
        last = calls;
    }
}

/// As [`endures`], where calls are left open on purpose.
async fn endures_with_calls<T>(pillion: &mut Pillion, attack: impl Future<Output = T>) -> T {
    let bystander = crate::client::Client::connect(pillion.address()).await;
    assert!(bystander.call("echo").await.is_ok());
    let ended = attack.await;
    assert!(bystander.call("echo").await.is_ok());
    assert!(!pillion.has_ended());
    ended
}

#[tokio::test]
async fn a_client_that_closes_half_of_its_connection_leaves_nothing_behind() {
    let scene = Scene::new("header_timeout = \"500ms\"").await;
    for _ in 0..100 {
        let mut tcp = TcpStream::connect(scene.address()).await.unwrap();
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        tcp.shutdown().await.unwrap();
    }
    let so = |m: &crate::metrics::Metrics| m.sum("downstream_connections", &[]) == 0.0;
    scene.pillion.until_metrics("they have ended", so).await;
}
