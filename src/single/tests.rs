//! Both ends of a call: against what h2 says, and against what nobody should.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::{
    Connection, Error, MAX_FRAME,
    frame::{Head, flag, kind},
};

/// An endpoint that says what is in `says`, so many bytes at a time, and keeps what it is told.
#[derive(Debug, Default)]
struct Script {
    says: Vec<u8>,
    at_a_time: Option<usize>,
    closes: bool,
    told: Vec<u8>,
    writes: usize,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.at_a_time.unwrap_or(usize::MAX);
        let bytes = self.says.len().min(buf.remaining()).min(most);
        if bytes == 0 && !self.closes {
            return Poll::Pending;
        }
        buf.put_slice(&self.says.drain(..bytes).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.told.extend_from_slice(buf);
        self.writes += 1;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    Head { length: payload.len(), kind, flags, stream }.put(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes.to_vec()
}

fn settings() -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[])
}

/// `:status: 200`, and `a: b`, of which the table gets the second.
const OK: &[u8] = b"\x88\x40\x01a\x01b";
/// `grpc-status: 0`.
const STATUS: &[u8] = b"\x00\x0bgrpc-status\x010";

fn head(flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flags, 1, OK)
}

fn data(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, 1, payload)
}

fn trailers() -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, STATUS)
}

fn request(method: Method) -> Request<()> {
    Request::builder()
        .method(method)
        .uri("http://service/package.Service/Method")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// A connection on which a call has been made and driven, to an endpoint that says `says` behind its SETTINGS.
fn called(script: Script) -> Connection<Script> {
    let says = [settings(), script.says].concat();
    let mut connection = Connection::new(Script { says, ..script });
    connection.send_request(&request(Method::POST), true).unwrap();
    drive(&mut connection);
    connection
}

fn answered(says: &[Vec<u8>]) -> Connection<Script> {
    called(Script { says: says.concat(), ..Script::default() })
}

/// Whether a connection wants another turn.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Drives a connection until it waits for its endpoint.
fn drive(connection: &mut Connection<Script>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        connection.drive(&mut Context::from_waker(&waker), None);
        if !woken.0.swap(false, Relaxed) {
            return;
        }
    }
}

/// Head, body, trailers of an answer, as far as they have come, and why no more will.
fn taken(
    connection: &mut Connection<Script>,
) -> (Option<u16>, Vec<u8>, Option<HeaderMap>, Option<Error>) {
    let status = match connection.poll_response() {
        Poll::Ready(Ok(head)) => Some(head.status().as_u16()),
        Poll::Ready(Err(error)) => return (None, Vec::new(), None, Some(error)),
        Poll::Pending => return (None, Vec::new(), None, None),
    };
    let (mut body, mut trailers) = (Vec::new(), None);
    let error = loop {
        match connection.poll_data() {
            Poll::Ready(Some(Ok(part))) => {
                connection.release(part.len());
                body.extend_from_slice(&part);
            }
            Poll::Ready(Some(Err(error))) => break Some(error),
            Poll::Ready(None) => match connection.poll_trailers() {
                Poll::Ready(Ok(came)) => {
                    trailers = came;
                    break None;
                }
                Poll::Ready(Err(error)) => break Some(error),
                Poll::Pending => break None,
            },
            Poll::Pending => break None,
        }
    };
    (status, body, trailers, error)
}

#[test]
fn an_answer_is_read_however_it_is_cut() {
    let says =
        [head(0), data(0, b"hello "), data(flag::PADDED, b"\x03world..."), trailers()].concat();
    for at_a_time in [1, 2, 3, 7, 8, 9, 10, 64, 10_000] {
        let mut connection =
            called(Script { says: says.clone(), at_a_time: Some(at_a_time), ..Script::default() });
        let (status, body, trailers, error) = taken(&mut connection);
        assert_eq!((status, &body[..]), (Some(200), &b"hello world"[..]), "{at_a_time}: {error:?}");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
        assert!(connection.is_end_stream());
    }
}

#[test]
fn what_is_said_first_and_the_call_go_out_together_where_the_endpoint_spoke_first() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut connection = Connection::new(Script { says: settings(), ..Script::default() });
    assert!(matches!(connection.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(connection.io().writes, 0);
    connection.send_request(&request(Method::POST), false).unwrap();
    connection.send_data(Bytes::from_static(b"message"), true).unwrap();
    connection.drive(&mut cx, None);
    assert_eq!(connection.io().writes, 1);
    let told = &connection.io().told;
    assert!(told.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    assert!(told.ends_with(&data(flag::END_STREAM, b"message")));
}

#[test]
fn an_endpoint_that_waits_is_told_what_is_said_first() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut connection = Connection::new(Script::default());
    assert!(connection.poll_ready(&mut cx).is_pending());
    assert_eq!(connection.io().writes, 1);
}

#[test]
fn an_endpoint_that_allows_no_stream_is_not_ready() {
    let mut cx = Context::from_waker(Waker::noop());
    let none = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]);
    let mut connection = Connection::new(Script { says: none, ..Script::default() });
    assert!(connection.poll_ready(&mut cx).is_pending());
    connection = Connection::new(Script {
        says: [
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]),
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]),
        ]
        .concat(),
        ..Script::default()
    });
    assert!(matches!(connection.poll_ready(&mut cx), Poll::Ready(Ok(()))));
}

#[test]
fn what_an_endpoint_may_not_say_is_told_by_its_code() {
    let long_head = |block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, 1, block);
    let cases = [
        ("not HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Reason::FRAME_SIZE_ERROR),
        (
            "a frame too large",
            frame(kind::DATA, 0, 1, &vec![0; MAX_FRAME + 1]),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("DATA before a head", data(0, b"x"), Reason::PROTOCOL_ERROR),
        ("another stream", frame(kind::HEADERS, flag::END_HEADERS, 3, OK), Reason::PROTOCOL_ERROR),
        ("a push", frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        ("a head without status", long_head(b"\x00\x01a\x01b"), Reason::PROTOCOL_ERROR),
        ("a status behind a header", long_head(b"\x00\x01a\x01b\x88"), Reason::PROTOCOL_ERROR),
        ("two of them", long_head(b"\x88\x88"), Reason::PROTOCOL_ERROR),
        ("a pseudo-header of calls", long_head(b"\x88\x83"), Reason::PROTOCOL_ERROR),
        ("an upper-case name", long_head(b"\x88\x00\x01A\x01b"), Reason::PROTOCOL_ERROR),
        ("a value of two lines", long_head(b"\x88\x00\x01a\x02\r\n"), Reason::PROTOCOL_ERROR),
        (
            "a header of HTTP/1.1",
            long_head(b"\x88\x00\x0aconnection\x05close"),
            Reason::PROTOCOL_ERROR,
        ),
        ("no HPACK", long_head(b"\xff\xff\xff\xff\xff"), Reason::COMPRESSION_ERROR),
        ("padding of nothing", frame(kind::HEADERS, 0xc, 1, b"\x05\x88"), Reason::PROTOCOL_ERROR),
        ("CONTINUATION of nothing", frame(kind::CONTINUATION, 4, 1, OK), Reason::PROTOCOL_ERROR),
        (
            "something within a head",
            [frame(kind::HEADERS, 0, 1, OK), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("a switch of protocols", long_head(b"\x08\x03101"), Reason::PROTOCOL_ERROR),
        (
            "an informational head that is all",
            frame(kind::HEADERS, 5, 1, b"\x08\x03100"),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "SETTINGS of another size",
            frame(kind::SETTINGS, 0, 0, &[0; 5]),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("SETTINGS of a stream", frame(kind::SETTINGS, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        ("a full acknowledgement", frame(kind::SETTINGS, 1, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        (
            "a frame size of 1",
            frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a window beyond all",
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("a PING of another size", frame(kind::PING, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a PING of a stream", frame(kind::PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        (
            "a WINDOW_UPDATE of nothing",
            frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a WINDOW_UPDATE beyond all",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "a RST_STREAM of another size",
            frame(kind::RST_STREAM, 0, 1, &[0; 3]),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("a GOAWAY of another size", frame(kind::GOAWAY, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        (
            "a PRIORITY of another size",
            frame(kind::PRIORITY, 0, 1, &[0; 4]),
            Reason::FRAME_SIZE_ERROR,
        ),
    ];
    for (what, says, expected) in cases {
        let (status, _, _, error) = taken(&mut answered(&[says]));
        assert!(status.is_none(), "{what}");
        assert!(
            matches!(error, Some(Error::Malformed { code, .. }) if code == expected),
            "{what}: {error:?}"
        );
    }
}

#[test]
fn what_breaks_the_rules_behind_a_good_head_fails_what_follows() {
    let declared = frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x88\x0f\x0d\x012");
    let cases = [
        ("trailers that do not end", vec![head(0), head(0)]),
        ("trailers with a status", vec![head(0), head(flag::END_STREAM)]),
        ("more than content-length", vec![declared.clone(), data(0, b"123")]),
        ("less than content-length", vec![declared.clone(), data(flag::END_STREAM, b"1")]),
        ("less, and trailers", vec![declared, data(0, b"1"), trailers()]),
    ];
    for (what, says) in cases {
        let (status, _, _, error) = taken(&mut answered(&says));
        let code = Reason::PROTOCOL_ERROR;
        assert_eq!(status, Some(200));
        assert!(
            matches!(error, Some(Error::Malformed { code: c, .. }) if c == code),
            "{what}: {error:?}"
        );
    }
    let much = vec![data(0, &[0; MAX_FRAME]); 17];
    let (_, body, _, error) = taken(&mut answered(&[vec![head(0)], much].concat()));
    assert_eq!(body.len(), 16 * MAX_FRAME);
    let code = Reason::FLOW_CONTROL_ERROR;
    assert!(matches!(error, Some(Error::Malformed { code: c, .. }) if c == code), "{error:?}");
}

#[test]
fn what_says_nothing_is_passed_over_but_not_for_ever() {
    let informational = frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x08\x03103");
    let unknown = frame(0x42, 0xff, 7, b"unknown");
    let priority = frame(kind::PRIORITY, 0, 1, &[0; 5]);
    let says =
        [informational, unknown, priority, head(0), data(0, b""), data(flag::END_STREAM, b"x")];
    let (status, body, _, error) = taken(&mut answered(&says));
    assert_eq!((status, &body[..], error.is_none()), (Some(200), &b"x"[..], true));
    let (_, _, _, error) = taken(&mut answered(&[head(0), data(0, b"").repeat(20_000)]));
    let code = Reason::ENHANCE_YOUR_CALM;
    assert!(matches!(error, Some(Error::Malformed { code: c, .. }) if c == code), "{error:?}");
    let endless =
        [frame(kind::HEADERS, 0, 1, OK), frame(kind::CONTINUATION, 0, 1, b"").repeat(200)];
    let (_, _, _, error) = taken(&mut answered(&endless));
    assert!(matches!(error, Some(Error::Malformed { code: c, .. }) if c == code), "{error:?}");
}

#[test]
fn resets_goodbyes_and_ends_are_told_apart() {
    let reset = |code: u8| frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, code]);
    let goodbye = |last: u8| frame(kind::GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
    let error = |says: &[Vec<u8>], closes| {
        let says = says.concat();
        taken(&mut called(Script { says, closes, ..Script::default() })).3
    };
    assert!(matches!(error(&[reset(7)], false), Some(Error::Reset(Reason::REFUSED_STREAM))));
    assert!(matches!(error(&[head(0), reset(0)], false), Some(Error::Reset(Reason::NO_ERROR))));
    assert!(matches!(error(&[goodbye(0)], false), Some(Error::GoAway(Reason::NO_ERROR))));
    assert!(error(&[goodbye(1)], false).is_none());
    assert!(matches!(error(&[goodbye(1), head(0)], true), Some(Error::Closed)));
    assert!(matches!(error(&[], true), Some(Error::Closed)));
    // Whatever comes behind the end does not matter.
    assert!(error(&[head(flag::END_STREAM), reset(2)], true).is_none());
}

#[test]
fn no_more_is_read_than_is_wanted() {
    let mut cx = Context::from_waker(Waker::noop());
    let body = data(0, &[0; 1_000]).repeat(100);
    let mut connection =
        Connection::new(Script { says: [settings(), head(0), body].concat(), ..Script::default() });
    connection.send_request(&request(Method::POST), true).unwrap();
    assert!(connection.drive(&mut cx, Some(0)));
    assert_eq!(connection.held(), 0);
    assert!(connection.drive(&mut cx, Some(20_000)));
    assert!((18_000..=20_000).contains(&connection.held()), "{}", connection.held());
    assert!(!connection.drive(&mut cx, None));
    assert_eq!(connection.held(), 100_000);
}

#[test]
fn small_parts_are_kept_together() {
    let says: Vec<u8> = [head(0), data(0, b"ab").repeat(5_000)].concat();
    let mut connection = answered(&[says]);
    let Poll::Ready(Some(Ok(part))) = connection.poll_data() else { panic!("nothing came") };
    assert_eq!(part.len(), 10_000);
}

#[test]
fn pings_are_answered_and_settings_acknowledged() {
    let ping = frame(kind::PING, 0, 0, b"12345678");
    let connection = answered(&[ping, frame(kind::PING, flag::ACK, 0, &[0; 8])]);
    let answers =
        [frame(kind::SETTINGS, flag::ACK, 0, &[]), frame(kind::PING, flag::ACK, 0, b"12345678")];
    assert!(connection.io().told.ends_with(&answers.concat()));
}

/// A server as h2 has it, which answers with all that it is sent, and says so in its trailers.
async fn echo(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call.unwrap();
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut answer = Response::new(());
            *answer.headers_mut() = head.headers;
            let mut send = respond.send_response(answer, false).unwrap();
            let mut length = 0;
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                length += part.len();
                let mut rest = part;
                while !rest.is_empty() {
                    send.reserve_capacity(rest.len());
                    let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    send.send_data(rest.split_to(room.min(rest.len())), false).unwrap();
                }
            }
            let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
            trailers.insert("length", length.into());
            send.send_trailers(trailers).unwrap();
        });
    }
}

#[tokio::test]
async fn a_call_of_megabytes_goes_to_a_server_of_h2_and_comes_back_with_its_headers() {
    let (near, far) = tokio::io::duplex(40_000);
    let server = tokio::spawn(echo(far));
    let mut connection = Connection::new(near);
    poll_fn(|cx| connection.poll_ready(cx)).await.unwrap();
    let mut call = request(Method::POST);
    // More than one frame holds.
    call.headers_mut().insert("long", "x".repeat(3 * MAX_FRAME).parse().unwrap());
    connection.send_request(&call, false).unwrap();
    let all = Bytes::from((0..3_000_000u32).map(|at| at as u8).collect::<Vec<_>>());
    let (mut rest, mut back, mut head) = (all.clone(), Vec::new(), None);
    let trailers = poll_fn(|cx| {
        loop {
            connection.drive(cx, None);
            while !rest.is_empty()
                && let Poll::Ready(Some(room)) = connection.poll_room()
            {
                let part = rest.split_to(room.min(rest.len()));
                connection.send_data(part, false).unwrap();
                if rest.is_empty() {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("said", "all".parse().unwrap());
                    connection.send_trailers(trailers).unwrap();
                }
            }
            connection.flush(cx);
            if head.is_none() {
                match connection.poll_response() {
                    Poll::Ready(response) => head = Some(response.unwrap()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match connection.poll_data() {
                Poll::Ready(Some(part)) => {
                    let part = part.unwrap();
                    connection.release(part.len());
                    back.extend_from_slice(&part);
                }
                Poll::Ready(None) => return connection.poll_trailers(),
                Poll::Pending => {
                    connection.flush(cx);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
    .unwrap()
    .unwrap();
    assert!(back == all, "{} of {} bytes came back", back.len(), all.len());
    let head = head.unwrap();
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert_eq!(head.headers()["long"].len(), 3 * MAX_FRAME);
    assert_eq!(
        (&trailers["length"], &trailers["said"]),
        (&"3000000".parse().unwrap(), &"all".parse().unwrap())
    );
    server.abort();
}

#[test]
fn a_connection_takes_less_than_a_kilobyte() {
    assert!(size_of::<Connection<tokio::net::TcpStream>>() < 768);
}
