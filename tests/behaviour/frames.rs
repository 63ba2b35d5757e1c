//! Frames that well-behaved peers never send, and legal ones that few do.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Client, get, message};
use crate::program::{Pillion, endpoint};
use crate::raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING,
    RST_STREAM, SETTINGS, Wire, answering, grpc_fields, header_block,
};
use crate::wait::soon;

/// A backend that answers with the number of bytes it got, and a proxy to it.
async fn counting() -> (Backend, Pillion) {
    let backend = Backend::start(|mut call: Incoming| async move {
        let Ok(body) = call.read().await else { return };
        let mut answer = call.begin();
        answer.send_data(Bytes::from(body.len().to_string()), false).unwrap();
        answer.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    (backend, pillion)
}

/// Sends the frames of one call in one write, and returns the body of the answer.
async fn call(wire: &mut Wire, stream: u32, frames: &[Frame]) -> String {
    wire.send(frames).await;
    let answer = wire.answer(stream).await;
    assert!(answer.last().is_some_and(|last| last.kind == HEADERS), "{answer:?}");
    let body = answer.into_iter().filter(|frame| frame.kind == DATA).flat_map(|f| f.payload);
    String::from_utf8(body.collect()).unwrap()
}

/// A call of 10 bytes on a connection that has been through something still works.
async fn still_works(wire: &mut Wire, stream: u32) {
    let frames = [
        Frame::headers(0, stream, &grpc_fields("echo")),
        Frame::data(END_STREAM, stream, &[7; 10]),
    ];
    assert_eq!(call(wire, stream, &frames).await, "10");
}

#[tokio::test]
async fn two_thousand_five_hundred_small_messages_in_one_write_are_one_upload() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    for stream in [1, 3] {
        let mut frames = vec![Frame::headers(0, stream, &grpc_fields("echo"))];
        frames.extend((0..2_499).map(|_| Frame::data(0, stream, &message(b"small"))));
        frames.push(Frame::data(END_STREAM, stream, &message(b"small")));
        assert_eq!(call(&mut wire, stream, &frames).await, "25000");
    }
    still_works(&mut wire, 5).await;
}

#[tokio::test]
async fn a_message_in_frames_of_five_bytes_and_empty_frames_between_them_passes() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    let mut frames = vec![Frame::headers(0, 1, &grpc_fields("echo"))];
    let upload = message(&[7; 10_000]);
    for (at, piece) in upload.chunks(5).enumerate() {
        frames.push(Frame::data(0, 1, piece));
        if at % 40 == 0 {
            frames.push(Frame::data(0, 1, b""));
        }
    }
    frames.push(Frame::data(END_STREAM, 1, b""));
    assert_eq!(call(&mut wire, 1, &frames).await, "10005");
    still_works(&mut wire, 3).await;
}

#[tokio::test]
async fn padding_is_taken_off_and_counts_for_the_windows() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    let padded = |payload: &[u8]| [&[255], payload, &[0; 255]].concat();
    let fields = header_block(&grpc_fields("echo"));
    let mut frames = vec![Frame::new(HEADERS, END_HEADERS | PADDED, 1, &padded(&fields))];
    frames.extend((0..200).map(|_| Frame::new(DATA, PADDED, 1, &padded(b"fives"))));
    frames.push(Frame::new(DATA, PADDED | END_STREAM, 1, &padded(b"")));
    assert_eq!(call(&mut wire, 1, &frames).await, "1000");
    // Five times the window of a stream, had the padding not been given back.
    for stream in [3, 5, 7] {
        for frame in &mut frames {
            frame.stream = stream;
        }
        assert_eq!(call(&mut wire, stream, &frames).await, "1000");
    }
}

#[tokio::test]
async fn a_head_may_come_in_many_frames() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    let block = header_block(&grpc_fields("echo"));
    let mut pieces = block.chunks(30);
    let mut frames = vec![Frame::new(HEADERS, 0, 1, pieces.next().unwrap())];
    frames.extend(pieces.map(|piece| Frame::new(CONTINUATION, 0, 1, piece)));
    frames.last_mut().unwrap().flags |= END_HEADERS;
    assert!(frames.len() >= 4, "{}", frames.len());
    frames.push(Frame::data(END_STREAM, 1, b"body"));
    assert_eq!(call(&mut wire, 1, &frames).await, "4");
}

#[tokio::test]
async fn pings_are_answered_and_frames_of_unknown_kinds_are_ignored() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::new(0xbe, 0xff, 0, b"who knows"), Frame::new(PING, 0, 0, b"12345678")])
        .await;
    let pong = wire.until(&[PING]).await.unwrap();
    assert_eq!((pong.flags, &*pong.payload), (ACK, &b"12345678"[..]));
    still_works(&mut wire, 1).await;
}

#[tokio::test]
async fn an_answer_waits_for_a_window_that_the_caller_opens_byte_by_byte() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    let no_window = [0, 4, 0, 0, 0, 0];
    wire.send(&[
        Frame::new(SETTINGS, 0, 0, &no_window),
        Frame::headers(0, 1, &grpc_fields("echo")),
        Frame::data(END_STREAM, 1, &[7; 123]),
    ])
    .await;
    assert!(!wire.until(&[HEADERS]).await.unwrap().ends_stream());
    for byte in [b"1", b"2", b"3"] {
        wire.send(&[Frame::window_update(1, 1)]).await;
        assert_eq!(wire.until(&[DATA]).await.unwrap().payload, byte);
    }
    assert!(wire.until(&[HEADERS]).await.unwrap().ends_stream());
}

#[tokio::test]
async fn a_malformed_call_is_reset_and_its_neighbours_go_on() {
    let (backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(0, 1, &grpc_fields("echo"))]).await;
    let malformed: [&[(&str, &str)]; 4] = [
        &[("connection", "keep-alive")],
        &[("transfer-encoding", "chunked")],
        &[(":path", "/twice")],
        &[("te", "gzip")],
    ];
    for (stream, wrong) in (3..).step_by(2).zip(malformed) {
        let fields = [&grpc_fields("echo")[..5], wrong].concat();
        wire.send(&[Frame::headers(END_STREAM, stream, &fields)]).await;
        let answer = wire.answer(stream).await;
        assert!(!answer.is_empty(), "{wrong:?}");
        assert_eq!((answer[0].kind, answer[0].code()), (RST_STREAM, 1), "{wrong:?}: {answer:?}");
    }
    assert_eq!(call(&mut wire, 1, &[Frame::data(END_STREAM, 1, b"body")]).await, "4");
    assert_eq!(backend.counts().calls, 1);
}

#[tokio::test]
async fn connect_is_refused() {
    let (backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    let fields = [(":method", "CONNECT"), (":authority", "echo")];
    wire.send(&[Frame::headers(0, 1, &fields)]).await;
    let answer = wire.answer(1).await;
    assert!(answer.iter().any(Frame::ends_stream), "{answer:?}");
    let refused = [("service", "unknown"), ("grpc_status", "501"), ("error", "bad_request")];
    pillion.until_metrics("it is counted", |m| m.sum("requests_total", &refused) == 1.0).await;
    still_works(&mut wire, 3).await;
    assert_eq!(backend.counts().calls, 1);
}

#[tokio::test]
async fn whoever_does_not_speak_http2_is_turned_away_and_nobody_else_suffers() {
    let (_backend, pillion) = counting().await;
    let mut wire = Wire::connect(pillion.address()).await;
    for wrong in ["GET / HTTP/1.1\r\nhost: echo\r\n\r\n", "\u{16}\u{3}\u{1} not TLS either, really"]
    {
        let mut tcp = TcpStream::connect(pillion.address()).await.unwrap();
        tcp.write_all(wrong.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as a close.
        let _ = soon("a close", tcp.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    still_works(&mut wire, 1).await;
}

#[tokio::test]
async fn a_frame_that_breaks_the_connection_ends_it_with_a_code() {
    let (_backend, pillion) = counting().await;
    let broken = [
        Frame::data(0, 0, b"on no stream"),
        Frame::window_update(0, 0),
        Frame::new(SETTINGS, 0, 0, b"odd"),
        Frame::new(CONTINUATION, END_HEADERS, 1, b""),
    ];
    for frame in broken {
        let mut wire = Wire::connect(pillion.address()).await;
        wire.send(std::slice::from_ref(&frame)).await;
        let told = wire.until(&[GOAWAY]).await.unwrap();
        assert_ne!(told.code(), 0, "{frame:?}");
    }
    still_works(&mut Wire::connect(pillion.address()).await, 1).await;
}

const ANSWER: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
const OK: [(&str, &str); 1] = [("grpc-status", "0")];

#[tokio::test]
async fn small_padded_and_empty_frames_of_an_endpoint_pass() {
    let address = answering(|stream| {
        let padded = [&[255], &message(b"small")[..], &[0; 255]].concat();
        let mut frames = vec![Frame::headers(0, stream, &ANSWER)];
        for at in 0..2_500 {
            frames.push(match at % 50 {
                0 => Frame::new(DATA, PADDED, stream, &padded),
                _ => Frame::data(0, stream, &message(b"small")),
            });
            if at % 100 == 0 {
                frames.push(Frame::data(0, stream, b""));
            }
        }
        frames.push(Frame::headers(END_STREAM, stream, &OK));
        frames
    })
    .await;
    let pillion = Pillion::start("", [endpoint("echo", address, "")]).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..3 {
        let answer = client.call("echo").await;
        assert_eq!((answer.body.len(), answer.grpc_status()), (25_000, Some(0)));
    }
}

#[tokio::test]
async fn answers_with_informational_heads_or_without_any_body_pass() {
    let address = answering(|stream| {
        vec![
            Frame::headers(0, stream, &[(":status", "103"), ("link", "</style.css>")]),
            Frame::headers(0, stream, &ANSWER),
            Frame::headers(END_STREAM, stream, &OK),
        ]
    })
    .await;
    let pillion = Pillion::start("", [endpoint("echo", address, "")]).await;
    let answer = Client::connect(pillion.address()).await.call("echo").await;
    assert_eq!((answer.head.status.as_u16(), answer.grpc_status()), (200, Some(0)));
}

#[tokio::test]
async fn an_endpoint_that_sends_what_is_not_http2_fails_its_call_only() {
    let address = answering(|stream| {
        vec![Frame::headers(0, stream, &ANSWER), Frame::data(END_STREAM, stream + 2, b"not asked")]
    })
    .await;
    let backend = Backend::echo().await;
    let endpoints = [endpoint("odd", address, ""), backend.as_endpoint("echo")];
    let pillion = Pillion::start("[defaults]\nconnection = \"pooled\"", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.call("odd").await;
    assert_eq!(
        (answer.grpc_status(), answer.header("pillion-error")),
        (Some(13), Some("upstream_protocol"))
    );
    assert!(client.send(get("odd"), b"").await.is_err());
    assert!(client.call("echo").await.is_ok());
}
