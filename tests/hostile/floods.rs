//! Frames by the hundred thousand that move no call.

use crate::raw::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, Flooded, Frame, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, grpc_fields, header_block, packed_block,
};
use crate::scene::{ENHANCE_YOUR_CALM, Scene};

const CUT_OFF: Flooded = Flooded::CutOff(Some(ENHANCE_YOUR_CALM));

/// A call whose body has begun.
fn begun(stream: u32) -> Vec<u8> {
    let head = Frame::headers(0, stream, &grpc_fields("echo")).bytes();
    [head, Frame::data(0, stream, b"begun").bytes()].concat()
}

async fn is_cut_off(frame: Frame, reason: &str) {
    let mut scene = Scene::new("").await;
    let pieces = [begun(1)].into_iter().chain(frame.times(400_000));
    let wire = scene.wire().await;
    assert_eq!(scene.endures(wire.flood(pieces)).await, CUT_OFF, "{frame:?}");
    scene.until_limited(reason, 1.0).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_cut_off() {
    is_cut_off(Frame::new(PING, 0, 0, b"flooding"), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_answers_to_pings_that_nobody_sent_is_cut_off() {
    is_cut_off(Frame::new(PING, ACK, 0, b"flooding"), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_settings_is_cut_off() {
    is_cut_off(Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_priorities_is_cut_off() {
    is_cut_off(Frame::new(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_window_updates_is_cut_off() {
    is_cut_off(Frame::window_update(0, 1), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_unknown_frames_is_cut_off() {
    is_cut_off(Frame::new(0xbe, 0xff, 0, b"who knows"), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_resets_of_one_stream_is_cut_off() {
    is_cut_off(Frame::reset(1, 8), "max_odd_frames").await;
}

#[tokio::test]
async fn a_flood_of_empty_data_is_cut_off() {
    is_cut_off(Frame::data(0, 1, b""), "http2").await;
}

#[tokio::test]
async fn a_flood_of_data_that_is_only_padding_is_cut_off() {
    let padding = [&[255][..], &[0; 255]].concat();
    is_cut_off(Frame::new(0, PADDED, 1, &padding), "http2").await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let blocks = [vec![], vec![0x90], header_block(&[("x-more", &"y".repeat(16_000))])];
    for block in blocks {
        let mut scene = Scene::new("").await;
        let first = Frame::new(HEADERS, 0, 1, &header_block(&grpc_fields("echo"))).bytes();
        let more = Frame::new(CONTINUATION, 0, 1, &block);
        let count = if block.len() > 10 { 4_000 } else { 100_000 };
        let wire = scene.wire().await;
        let ended = scene.endures(wire.flood([first].into_iter().chain(more.times(count)))).await;
        assert_eq!(ended, CUT_OFF, "blocks of {}", block.len());
    }
}

/// A head with an entry of 4000 bytes that is named again and again.
fn bomb(stream: u32, entries: usize) -> Frame {
    let bomb = ("x-bomb", &*"b".repeat(4_000));
    let block = packed_block(&grpc_fields("echo"), bomb, stream == 1, entries);
    Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

#[tokio::test]
async fn a_head_that_unpacks_to_forty_megabytes_is_cut_off() {
    let mut scene = Scene::new("").await;
    let heads = (0..20).map(|at| bomb(2 * at + 1, 11_000).bytes());
    let wire = scene.wire().await;
    assert_eq!(scene.endures(wire.flood(heads)).await, CUT_OFF);
    scene.until_limited("http2", 1.0).await;
}

#[tokio::test]
async fn heads_that_unpack_to_more_than_is_allowed_are_refused_one_by_one() {
    let mut scene = Scene::new("").await;
    let mut wire = scene.wire().await;
    let refused = scene.endures(async {
        for batch in 0..20 {
            let streams = (0..50).map(|at| 2 * (50 * batch + at) + 1);
            let heads: Vec<_> = streams.clone().map(|stream| bomb(stream, 100)).collect();
            wire.send(&heads).await;
            for stream in streams {
                let answer = wire.until(&[HEADERS, RST_STREAM]).await.unwrap();
                assert_eq!((answer.kind, answer.ends_stream()), (HEADERS, true), "{stream}");
            }
        }
    });
    refused.await;
    scene.until_limited("max_header_size", 1_000.0).await;
}

#[tokio::test]
async fn as_many_odd_frames_as_are_allowed_pass() {
    let scene = Scene::new("max_odd_frames = 1000").await;
    let frame = Frame::new(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]);
    let flood = |count| vec![frame.bytes().repeat(count)];
    assert_eq!(scene.wire().await.flood(flood(990)).await, Flooded::Taken);
    assert_eq!(scene.wire().await.flood(flood(2_100)).await, CUT_OFF);
    let scene = Scene::new("max_odd_frames = 0").await;
    assert_eq!(scene.wire().await.flood(flood(50_000)).await, Flooded::Taken);
}

#[tokio::test]
async fn a_ping_for_each_call_is_no_flood() {
    let scene = Scene::new("max_odd_frames = 20").await;
    let mut wire = scene.wire().await;
    for at in 0..200 {
        let stream = 2 * at + 1;
        let head = Frame::headers(0, stream, &grpc_fields("echo"));
        let ping = Frame::new(PING, 0, 0, b"how fast");
        wire.send(&[head, Frame::data(END_STREAM, stream, b"hello"), ping]).await;
        assert!(wire.answer(stream).await.iter().any(|frame| frame.payload == b"hello"));
    }
}
