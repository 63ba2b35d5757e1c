//! Calls that are broken off as soon as they are made: each costs an endpoint something, and none holds a
//! place for long.

use std::time::Duration;

use crate::client::{Client, grpc, grpc_with};
use crate::raw::{END_STREAM, Flooded, Frame, PRIORITY, Wire, grpc_fields};
use crate::scene::{ENHANCE_YOUR_CALM, Scene};

const CANCEL: u32 = 8;
const CUT_OFF: Flooded = Flooded::CutOff(Some(ENHANCE_YOUR_CALM));

/// The frames of so many streams, ten streams in a piece.
fn streams(count: u32, frames: impl Fn(u32) -> Vec<Frame>) -> Vec<Vec<u8>> {
    let all: Vec<u32> = (0..count).map(|at| 2 * at + 1).collect();
    let bytes = |stream: &u32| frames(*stream).iter().flat_map(Frame::bytes).collect::<Vec<_>>();
    all.chunks(10).map(|ten| ten.iter().flat_map(bytes).collect()).collect()
}

fn call(stream: u32) -> Frame {
    Frame::headers(0, stream, &grpc_fields("echo"))
}

fn call_with(stream: u32, header: (&str, &str)) -> Frame {
    Frame::headers(0, stream, &[&grpc_fields("echo")[..], &[header]].concat())
}

fn reset(stream: u32) -> Vec<Frame> {
    vec![call(stream), Frame::reset(stream, CANCEL)]
}

#[tokio::test]
async fn a_burst_of_calls_that_are_reset_at_once_is_cut_off_and_reaches_no_endpoint() {
    let mut scene = Scene::new("").await;
    let wire = scene.wire().await;
    let calls = streams(10_000, reset).concat();
    assert_eq!(scene.endures(wire.flood([calls])).await, CUT_OFF);
}

/// Opens streams, ten at a time, and resets them once the proxy has read their heads, until that is cut off.
async fn paced(mut wire: Wire, most: u32) -> Flooded {
    let streams: Vec<u32> = (0..most).map(|at| 2 * at + 1).collect();
    for ten in streams.chunks(10) {
        let heads: Vec<_> = ten.iter().map(|stream| call(*stream)).collect();
        let resets: Vec<_> = ten.iter().map(|stream| Frame::reset(*stream, CANCEL)).collect();
        for frames in [heads, resets] {
            if let Err(code) = wire.pass(&frames).await {
                return Flooded::CutOff(code);
            }
        }
    }
    Flooded::Taken
}

#[tokio::test]
async fn calls_that_are_reset_one_by_one_are_cut_off_before_they_cost_many_connections() {
    let mut scene = Scene::new("").await;
    let wire = scene.wire().await;
    assert_eq!(scene.endures(paced(wire, 3_000)).await, CUT_OFF);
    scene.until_limited("max_resets", 1.0).await;
    scene.pillion.until_logged("reason=\"max_resets\" peer=127.0.0.1").await;
    let on_one = scene.backend.counts().accepted;
    let bystander = scene.pillion.metrics().await;
    let answered = bystander.sum("requests_total", &[("grpc_status", "OK")]);
    let others = on_one as f64 - answered;
    assert!(others < 400.0, "{others} connections for calls that were reset");
}

#[tokio::test]
async fn calls_that_the_proxy_is_made_to_reset_are_cut_off() {
    // A window that overflows, a length that is wrong, a header that has no place in HTTP/2, a stream that
    // depends on itself: each is an error of the stream.
    let spoils: [fn(u32) -> Vec<Frame>; 4] = [
        |stream| vec![call(stream), Frame::window_update(stream, u32::MAX >> 1)],
        |stream| {
            vec![
                call_with(stream, ("content-length", "3")),
                Frame::data(END_STREAM, stream, b"four"),
            ]
        },
        |stream| vec![call_with(stream, ("connection", "close"))],
        |stream| {
            let on_itself = [&stream.to_be_bytes()[..], &[0]].concat();
            vec![call(stream), Frame::new(PRIORITY, 0, stream, &on_itself)]
        },
    ];
    let mut scene = Scene::new("max_resets = 100").await;
    for (at, spoil) in spoils.into_iter().enumerate() {
        let mut wire = scene.wire().await;
        let ended = scene.endures(async {
            for ten in (0..200).map(|ten| (0..10).map(move |at| 20 * ten + 2 * at + 1)) {
                wire.pass(&ten.flat_map(spoil).collect::<Vec<_>>()).await?;
            }
            Ok(())
        });
        assert_eq!(ended.await, Err(Some(ENHANCE_YOUR_CALM)), "form {at}");
        scene.until_limited("max_resets", at as f64 + 1.0).await;
    }
}

#[tokio::test]
async fn as_many_resets_as_are_allowed_pass() {
    let scene = Scene::new("max_resets = 100").await;
    assert_eq!(paced(scene.wire().await, 100).await, Flooded::Taken);
    assert_eq!(paced(scene.wire().await, 250).await, CUT_OFF);
}

#[tokio::test]
async fn an_application_that_also_waits_for_answers_may_cancel_as_many_calls() {
    let scene = Scene::new("max_resets = 20").await;
    let client = Client::connect(scene.address()).await;
    for _ in 0..200 {
        let cancelled = client.begin(grpc("echo")).await;
        drop(cancelled);
        assert!(client.call("echo").await.is_ok());
    }
}

#[tokio::test]
async fn calls_whose_time_is_up_may_be_reset() {
    let backend = crate::backend::Backend::start(|_| std::future::pending()).await;
    let pillion = crate::scene::proxy("max_resets = 20", "", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..60 {
        let call = client.begin(grpc_with("echo", &[("grpc-timeout", "30m")])).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(call);
    }
    drop(client.begin(grpc("echo")).await);
}
