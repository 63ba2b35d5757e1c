//! Calls and answers that others might read in another way: refused on their stream, never passed on.

use crate::backend::{Backend, Counts};
use crate::client::Client;
use crate::program::endpoint;
use crate::raw::{
    DATA, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Wire, answering, grpc_fields,
};
use crate::scene::{Scene, proxy};

const PROTOCOL_ERROR: u32 = 1;

/// How a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// By an answer with a reason.
    Answer(&'static str),
    /// By h2, with a reset.
    Reset,
    /// By h2, with the whole connection: it takes it for a mistake of HPACK.
    Connection,
}
use Refused::{Answer, Connection, Reset};

/// The fields of a good call, each changed as `changes` say: another value, or none where that is empty, or
/// one more.
fn fields<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = grpc_fields("echo").to_vec();
    for (name, value) in changes {
        let (name, more) = name.strip_prefix('+').map_or((*name, false), |name| (name, true));
        match fields.iter().position(|(known, _)| *known == name) {
            Some(at) if !more && value.is_empty() => drop(fields.remove(at)),
            Some(at) if !more => fields[at].1 = value,
            _ => fields.push((name, value)),
        }
    }
    fields
}

#[tokio::test]
async fn a_malformed_call_is_refused_on_its_stream_and_reaches_no_endpoint() {
    let scene = Scene::new("").await;
    let mut wire = scene.wire().await;
    // A neighbour on the same connection, whose call goes on all the while.
    wire.send(&[Frame::headers(0, 1, &fields(&[]))]).await;
    let long = "a".repeat(70_000);
    let beyond_255 = "a".repeat(256);
    let cases: &[(&[(&str, &str)], Refused)] = &[
        // Pseudo-headers.
        (&[(":method", "")], Reset),
        (&[(":scheme", "")], Reset),
        (&[(":path", "")], Reset),
        (&[("+:path", "/twice")], Reset),
        (&[("+:status", "200")], Reset),
        (&[("+:unknown", "x")], Connection),
        (&[(":method", "GE T")], Connection),
        (&[(":method", "CONNECT")], Reset),
        (&[(":method", "CONNECT"), (":scheme", ""), (":path", "")], Answer("bad_request")),
        (&[(":scheme", "ftp")], Answer("bad_request")),
        (&[(":path", ""), ("+:path", "/behind/a.header")], Reset),
        (&[(":authority", ""), ("+:authority", "echo")], Reset),
        (&[("+:method", "GET")], Reset),
        (&[("+:authority", "echo")], Reset),
        (&[("+:scheme", "https")], Reset),
        (&[("+:protocol", "websocket")], Reset),
        (&[(":scheme", "h ttp")], Reset),
        // The path.
        (&[(":path", "*")], Answer("bad_request")),
        (&[(":path", "no/slash")], Reset),
        (&[(":path", "?only=query")], Answer("bad_request")),
        (&[(":path", "/a b")], Reset),
        (&[(":path", "/a\u{1}b")], Reset),
        (&[(":path", "/a\r\nx: y")], Reset),
        (&[(":path", "/\u{fc}")], Answer("bad_request")),
        (&[(":path", "http://other/a")], Reset),
        // The authority.
        (&[(":authority", "user:pass word@echo")], Reset),
        (&[(":authority", "a:1:2")], Reset),
        (&[(":authority", "echo:99999")], Answer("bad_authority")),
        (&[(":authority", "echo:65536")], Answer("bad_authority")),
        (&[(":authority", "echo/../other")], Reset),
        (&[(":authority", "..%2fother")], Reset),
        (&[(":authority", "user:password@echo")], Answer("bad_authority")),
        (&[(":authority", "a@b@c")], Answer("no_endpoints")),
        (&[(":authority", ""), ("host", "echo"), ("+host", "other")], Answer("bad_request")),
        (&[(":authority", ""), ("host", "echo:99999")], Answer("bad_authority")),
        (&[(":authority", ""), ("host", "ec ho")], Answer("bad_authority")),
        (&[(":authority", "[::1")], Reset),
        (&[(":authority", "[::1]:80")], Answer("bad_authority")),
        (&[(":authority", "echo:-1")], Answer("bad_authority")),
        (&[(":authority", "echo:+80")], Answer("bad_authority")),
        (&[(":authority", "echo?a")], Reset),
        (&[(":authority", "echo#a")], Reset),
        (&[(":authority", "echo\\a")], Reset),
        (&[(":authority", "ec\tho")], Reset),
        (&[(":authority", "\u{fc}")], Reset),
        (&[(":authority", &beyond_255)], Answer("bad_authority")),
        (&[(":authority", ""), ("host", "user:pw@echo")], Answer("bad_authority")),
        (&[(":authority", ""), ("host", "echo/a")], Answer("bad_authority")),
        // Headers of a connection, and of HTTP/1.
        (&[("connection", "x-a"), ("x-a", "b")], Reset),
        (&[("keep-alive", "timeout=5")], Reset),
        (&[("proxy-connection", "close")], Reset),
        (&[("transfer-encoding", "chunked")], Reset),
        (&[("upgrade", "websocket")], Reset),
        (&[("te", "gzip")], Reset),
        (&[("te", "trailers, gzip")], Reset),
        (&[("+te", "gzip")], Reset),
        // Names and values.
        (&[("X-Upper", "a")], Connection),
        (&[("x a", "b")], Connection),
        (&[("", "nameless")], Connection),
        (&[("x-a", "b\r\nc: d")], Connection),
        (&[("x-a", "b\0c")], Connection),
        (&[("x-a", " b")], Answer("bad_request")),
        (&[("x-a", "b\t")], Answer("bad_request")),
        (&[("x-a", &long)], Answer("overloaded")),
        (&[("x\u{7f}a", "b")], Connection),
        (&[("x-\u{fc}", "b")], Connection),
        (&[("a:b", "c")], Connection),
        (&[("x-a", "b\u{7f}c")], Connection),
        (&[("x-a", "\tb")], Answer("bad_request")),
        // Lengths that are no lengths, or several.
        (&[("content-length", "5")], Reset),
        (&[("content-length", "-1")], Reset),
        (&[("content-length", "0x0")], Reset),
        (&[("content-length", "+0")], Reset),
        (&[("content-length", "0,0")], Reset),
        (&[("content-length", "0 0")], Reset),
        (&[("content-length", "18446744073709551616")], Reset),
        (&[("content-length", "0"), ("+content-length", "0")], Answer("bad_request")),
        (&[("content-length", "0"), ("+content-length", "3")], Reset),
    ];
    let (mut wrong, mut answered) = (Vec::new(), Vec::new());
    for (stream, (changes, expected)) in (3..).step_by(2).zip(cases) {
        let (head, tail) = split(Frame::headers(END_STREAM, stream, &fields(changes)));
        if *expected == Connection {
            let mut wire = scene.wire().await;
            wire.send(&[head]).await;
            let told = wire.until(&[GOAWAY]).await;
            assert!(told.is_some_and(|told| told.code() != 0), "{:?}", &changes[0]);
            continue;
        }
        wire.send(&[vec![head], tail].concat()).await;
        let answer = wire.answer(stream).await;
        let last = answer.last().map(|last| (last.kind, last.ends_stream()));
        let is_so = match *expected {
            // Its text is compressed; what is counted says it as well.
            Answer(reason) => {
                answered.push(reason);
                let of = |reason| answered.iter().filter(|told| **told == reason).count() as f64;
                let metrics = scene.until_ended(answered.len()).await;
                let counted = metrics.sum("requests_total", &[("error", reason)]);
                let is_so = last == Some((HEADERS, true)) && counted == of(reason);
                if !is_so {
                    println!(
                        "not {reason}: {:?}",
                        metrics.values_of("error", "requests_total", &[])
                    );
                }
                is_so
            }
            Reset => {
                let code = answer.last().map(|last| (last.kind, last.code()));
                answer.len() == 1 && code == Some((RST_STREAM, PROTOCOL_ERROR))
            }
            Connection => unreachable!("on a connection of its own"),
        };
        if !is_so {
            wrong.push(format!("{:?}: {answer:?}", &changes[0]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    wire.send(&[Frame::data(END_STREAM, 1, b"hello")]).await;
    assert!(wire.answer(1).await.iter().any(|frame| frame.payload == b"hello"));
    assert_eq!(scene.backend.counts().calls, 1, "only the neighbour's has come");
    let resets = cases.iter().filter(|(_, refused)| *refused == Reset).count();
    scene.until_limited("malformed", resets as f64).await;
}

/// A head that is too long for one frame, in several.
fn split(head: Frame) -> (Frame, Vec<Frame>) {
    let mut pieces = head.payload.chunks(16_000);
    let first = pieces.next().unwrap_or_default();
    let rest: Vec<_> = pieces.collect();
    let ends = |last: bool| if last { crate::raw::END_HEADERS } else { 0 };
    let first = Frame::new(HEADERS, END_STREAM | ends(rest.is_empty()), head.stream, first);
    let more = rest.iter().enumerate().map(|(at, piece)| {
        Frame::new(crate::raw::CONTINUATION, ends(at + 1 == rest.len()), head.stream, piece)
    });
    let more = more.collect();
    (first, more)
}

#[tokio::test]
async fn user_information_and_another_host_are_not_passed_on() {
    let scene = Scene::new("").await;
    let mut wire = scene.wire().await;
    let node = scene.backend.address().to_string();
    let pinned = format!("echo@{node}");
    for (stream, changes) in
        [(1, vec![(":authority", &*pinned)]), (3, vec![("host", "other"), ("+host", "another")])]
    {
        wire.send(&[Frame::headers(END_STREAM, stream, &fields(&changes))]).await;
        assert!(wire.answer(stream).await.last().is_some_and(|last| last.kind == HEADERS));
        let head = scene.backend.last_head();
        assert_eq!(head.uri.authority().unwrap(), "echo", "{changes:?}");
        assert!(!head.headers.contains_key("host"), "{changes:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_longer_or_shorter_than_it_was_said_to_be_ends_its_call() {
    let scene = Scene::new("").await;
    let mut wire = scene.wire().await;
    for (stream, body) in [(1, &b"four!"[..]), (3, b"for")] {
        wire.send(&[
            Frame::headers(0, stream, &fields(&[("content-length", "4")])),
            Frame::data(END_STREAM, stream, body),
        ])
        .await;
        let answer = wire.answer(stream).await;
        assert!(answer.iter().any(|frame| frame.kind == RST_STREAM), "{answer:?}");
    }
    wire.send(&[
        Frame::headers(0, 5, &fields(&[("content-length", "4")])),
        Frame::data(END_STREAM, 5, b"four"),
    ])
    .await;
    assert!(wire.answer(5).await.iter().any(|frame| frame.payload == b"four"));
}

#[tokio::test]
async fn trailers_that_break_the_rules_end_their_call() {
    let scene = Scene::new("").await;
    let mut wire = scene.wire().await;
    // A neighbour, whose call goes on all the while.
    wire.send(&[Frame::headers(0, 1, &fields(&[]))]).await;
    let cases: &[(u8, &[(&str, &str)])] = &[
        (0, &[("x-trailer", "does not end")]),
        (END_STREAM, &[("connection", "close")]),
        (END_STREAM, &[("keep-alive", "timeout=5")]),
        (END_STREAM, &[("proxy-connection", "close")]),
        (END_STREAM, &[("transfer-encoding", "chunked")]),
        (END_STREAM, &[("upgrade", "websocket")]),
        (END_STREAM, &[("te", "gzip")]),
        (END_STREAM, &[("x-a", "b"), (":path", "/other")]),
        (END_STREAM, &[("x-a", " b")]),
        (END_STREAM, &[("x-a", "b\t")]),
    ];
    for (at, (flags, trailers)) in cases.iter().enumerate() {
        let stream = 2 * at as u32 + 3;
        let head = Frame::headers(0, stream, &fields(&[]));
        wire.send(&[head, Frame::data(0, stream, b"hello")]).await;
        wire.send(&[Frame::headers(*flags, stream, trailers)]).await;
        let answer = wire.answer(stream).await;
        let told: Vec<_> = answer.iter().map(|frame| frame.kind).collect();
        // What h2 finds is reset, what is found here is answered.
        let is_padded = trailers.iter().any(|(_, value)| value.trim() != *value);
        assert_eq!(told, [if is_padded { HEADERS } else { RST_STREAM }], "{trailers:?}");
    }
    let refused = [("error", "bad_request")];
    assert_eq!(scene.pillion.metrics().await.sum("requests_total", &refused), 2.0);
    let calls = cases.len();
    let gone = |counts: &Counts| counts.cancelled == counts.calls - 1;
    scene.backend.until("none of them was whole", gone).await;
    wire.send(&[Frame::data(0, 1, b"hello"), Frame::headers(END_STREAM, 1, &[("x-a", "b")])]).await;
    assert!(wire.answer(1).await.iter().any(|frame| frame.payload == b"hello"));
    assert!(scene.backend.counts().calls <= calls + 1);
}

#[tokio::test]
async fn frames_that_have_no_place_where_they_are_end_the_connection_with_a_code() {
    let mut scene = Scene::new("").await;
    let address = scene.address();
    let head = |stream| Frame::headers(END_STREAM, stream, &grpc_fields("echo"));
    let broken = [
        vec![head(5), head(3)],
        vec![head(2)],
        vec![head(0)],
        vec![Frame::reset(1, 0)],
        vec![Frame::data(0, 9, b"of no stream")],
        vec![Frame::new(DATA, 8, 1, &[200, 1, 2])],
        vec![Frame::new(5, 4, 1, &[0, 0, 0, 2])],
        vec![Frame::new(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])],
        vec![Frame::new(4, 0, 0, &[0, 5, 0, 0, 0, 1])],
        vec![Frame::new(6, 0, 1, b"12345678")],
        vec![Frame::new(HEADERS, 4, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])],
        vec![Frame::new(0xbe, 0, 0, &[0; 20_000])],
    ];
    let each = scene.endures(async move {
        for frames in broken {
            let mut wire = Wire::connect(address).await;
            wire.send(&frames).await;
            let told = wire.until(&[GOAWAY]).await;
            assert!(told.as_ref().is_some_and(|told| told.code() != 0), "{frames:?}: {told:?}");
        }
    });
    each.await;
}

#[tokio::test]
async fn a_malformed_answer_ends_its_call_and_is_not_passed_on() {
    const OK: (&str, &str) = (":status", "200");
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    let heads: &[&[(&str, &str)]] = &[
        &[GRPC],
        &[(":status", "abc")],
        &[(":status", "099")],
        &[(":status", "600")],
        &[(":status", "999")],
        &[OK, (":status", "204")],
        &[GRPC, OK],
        &[OK, ("connection", "close")],
        &[OK, ("transfer-encoding", "chunked")],
        &[OK, ("X-Upper", "a")],
        &[OK, ("x-a", "b\r\nc: d")],
        &[OK, ("x-a", " b")],
        &[OK, ("content-length", "1"), ("content-length", "2")],
        &[OK, ("content-length", "1"), ("content-length", "1")],
        &[OK, ("content-length", "one")],
    ];
    let backend = Backend::echo().await;
    let mut endpoints = vec![backend.as_endpoint("echo")];
    for (at, head) in heads.iter().enumerate() {
        let answer = move |stream| {
            vec![
                Frame::headers(0, stream, head),
                Frame::data(0, stream, b"5"),
                Frame::headers(END_STREAM, stream, &[("grpc-status", "0")]),
            ]
        };
        endpoints.push(endpoint(&format!("odd-{at}"), answering(answer).await, ""));
    }
    let pillion = proxy("", "", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for (at, head) in heads.iter().enumerate() {
        let answer = client.call(&format!("odd-{at}")).await;
        let told = (answer.grpc_status(), answer.header("pillion-error"));
        assert_eq!(told, (Some(13), Some("upstream_protocol")), "{head:?}: {answer:?}");
        assert!(client.call("echo").await.is_ok());
    }
}

#[tokio::test]
async fn malformed_trailers_of_an_answer_end_its_call_and_are_not_passed_on() {
    let cases: &[(u8, &[(&str, &str)])] = &[
        (0, &[("grpc-status", "0")]),
        (END_STREAM, &[("grpc-status", "0"), ("connection", "close")]),
        (END_STREAM, &[("grpc-status", "0"), ("te", "gzip")]),
        (END_STREAM, &[("grpc-status", "0"), (":status", "200")]),
        (END_STREAM, &[("grpc-status", "0"), ("x-a", " b")]),
        (END_STREAM, &[("grpc-status", " 0")]),
        (END_STREAM, &[("grpc-status", "0\t")]),
    ];
    // With and without something before them.
    for body in [&b"5"[..], b""] {
        let mut endpoints = Vec::new();
        for (at, (flags, trailers)) in cases.iter().enumerate() {
            let (flags, trailers) = (*flags, *trailers);
            let answer = move |stream| {
                let head = [(":status", "200"), ("content-type", "application/grpc")];
                let mut frames = vec![Frame::headers(0, stream, &head)];
                if !body.is_empty() {
                    frames.push(Frame::data(0, stream, body));
                }
                frames.push(Frame::headers(flags, stream, trailers));
                frames
            };
            endpoints.push(endpoint(&format!("odd-{at}"), answering(answer).await, ""));
        }
        let pillion = proxy("", "", endpoints).await;
        let client = Client::connect(pillion.address()).await;
        for (at, (_, trailers)) in cases.iter().enumerate() {
            let answer = client.call(&format!("odd-{at}")).await;
            let told = (answer.grpc_status(), answer.header("pillion-error"));
            assert_eq!(told, (Some(13), Some("upstream_protocol")), "{trailers:?}: {answer:?}");
            assert_eq!(answer.header("x-a"), None);
        }
    }
}
