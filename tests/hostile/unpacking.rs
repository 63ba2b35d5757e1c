//! Trailers that are small on the wire and large when they are unpacked: an entry of the HPACK table
//! is named by one byte, and takes a hundred in memory.

use crate::backend::Backend;
use crate::program::endpoint;
use crate::raw::{
    END_HEADERS, END_STREAM, Flooded, Frame, HEADERS, Wire, grpc_fields, packed_block,
};
use crate::scene::{ENHANCE_YOUR_CALM, Scene, endures_long, proxy};

/// As many headers as one frame can name; half a mebibyte, as h2 counts them.
const ENTRIES: usize = 15_000;

#[tokio::test]
async fn trailers_with_thousands_of_headers_behind_calls_that_wait_are_cut_off() {
    let backend = Backend::echo().await;
    // It accepts and says nothing: calls wait for their connection.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints =
        [backend.as_endpoint("echo"), endpoint("silent", silent.local_addr().unwrap(), "")];
    let mut pillion = proxy("", "[defaults]\nconnect_timeout = \"60s\"", endpoints).await;
    let wire = Wire::connect(pillion.address()).await;
    let calls = (0..1000).map(|at| {
        let stream = 2 * at + 1;
        let head = Frame::headers(0, stream, &grpc_fields("silent")).bytes();
        let data = Frame::data(0, stream, b"hello").bytes();
        let block = packed_block(&[], ("a", "b"), stream == 1, ENTRIES);
        let trailers = Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, &block).bytes();
        [head, data, trailers].concat()
    });
    // Of what it has done, a tenth is forgiven each second: that is as much as one such call holds.
    let held = 3 << 19;
    let ended = endures_long(&mut pillion, held, wire.flood(calls)).await;
    assert_eq!(ended, Flooded::CutOff(Some(ENHANCE_YOUR_CALM)));
}

#[tokio::test]
async fn trailers_that_applications_send_are_no_flood() {
    let scene = Scene::new("max_odd_frames = 100").await;
    let mut wire = scene.wire().await;
    for at in 0..200 {
        let stream = 2 * at + 1;
        let head = Frame::headers(0, stream, &grpc_fields("echo"));
        let trailers = [("x-checksum", "0123456789abcdef"), ("x-note", &"n".repeat(150))];
        let trailers = Frame::headers(END_STREAM, stream, &trailers);
        wire.send(&[head, Frame::data(0, stream, b"hello"), trailers]).await;
        assert!(wire.answer(stream).await.iter().any(|frame| frame.payload == b"hello"));
    }
}
