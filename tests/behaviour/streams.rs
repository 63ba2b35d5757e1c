//! One call as HTTP/2 sees it: head, body and trailers both ways, half-close, cancellation, resets.

use bytes::Bytes;
use h2::Reason as Code;
use http::{HeaderMap, Response};

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, get, grpc, grpc_with, message, read_all};
use crate::program::{Pillion, endpoint};
use crate::raw::{DATA, END_STREAM, Frame, HEADERS, Wire, grpc_fields, serve};
use crate::wait::soon;

const CONNECTIONS: [&str; 3] = ["fresh", "warm", "pooled"];

async fn proxy_to(backend: &Backend, connection: &str) -> Pillion {
    let config = format!("[defaults]\nconnection = \"{connection}\"");
    Pillion::start(&config, [backend.as_endpoint("echo")]).await
}

/// Sends each piece back as it comes; trailers of the request as trailers of the answer.
async fn echo_piecewise(mut call: Incoming) {
    let mut down = call.begin();
    while let Some(Ok(piece)) = call.body.data().await {
        call.body.flow_control().release_capacity(piece.len()).unwrap();
        down.send_data(piece, false).unwrap();
    }
    let mut trailers = trailers(0);
    trailers.extend(call.body.trailers().await.unwrap().unwrap_or_default());
    down.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn head_pieces_and_trailers_pass_as_they_come_in_both_directions() {
    let backend = Backend::start(echo_piecewise).await;
    for connection in CONNECTIONS {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let mut call = client.begin(grpc("echo")).await;
        // The endpoint answers before the first piece is sent.
        let (head, mut body) = soon("the head", call.answer).await.unwrap().into_parts();
        assert_eq!(head.headers["backend"], backend.address().to_string());
        for piece in ["one", "two"] {
            call.body.send_data(Bytes::from_static(piece.as_bytes()), false).unwrap();
            assert_eq!(soon("the piece", body.data()).await.unwrap().unwrap(), piece);
        }
        let ours = HeaderMap::from_iter([("ours".parse().unwrap(), "yes".parse().unwrap())]);
        call.body.send_trailers(ours).unwrap();
        assert!(soon("the end", body.data()).await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["ours"], "yes");
        assert_eq!(trailers["grpc-status"], "0");
    }
}

#[tokio::test]
async fn an_answer_goes_on_after_the_request_has_ended() {
    let backend = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        let mut down = call.begin();
        for _ in 0..3 {
            down.send_data(Bytes::from_static(b"after"), false).unwrap();
            tokio::task::yield_now().await;
        }
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let pillion = proxy_to(&backend, "fresh").await;
    let answer = Client::connect(pillion.address()).await.call("echo").await;
    assert_eq!((&*answer.body, answer.grpc_status()), (&b"afterafterafter"[..], Some(0)));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_whole_and_asks_for_no_more() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        down.send_data(Bytes::from_static(b"enough"), false).unwrap();
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    for connection in CONNECTIONS {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let mut call = client.begin(grpc("echo")).await;
        call.body.send_data(Bytes::from_static(b"the first of many"), false).unwrap();
        let answer = soon("the answer", Answer::read(call.answer)).await.unwrap();
        assert_eq!((&*answer.body, answer.grpc_status()), (&b"enough"[..], Some(0)));
        let reset = std::future::poll_fn(|cx| call.body.poll_reset(cx));
        assert_eq!(soon("a reset", reset).await.unwrap(), Code::NO_ERROR);
    }
}

#[tokio::test]
async fn an_answer_of_trailers_only_stays_one_frame() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .body(())
            .unwrap();
        drop(call.begin_with(head, true));
    })
    .await;
    let pillion = proxy_to(&backend, "fresh").await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(END_STREAM, 1, &grpc_fields("echo"))]).await;
    let frames = wire.answer(1).await;
    assert_eq!(frames.len(), 1);
    assert!(frames[0].kind == HEADERS && frames[0].ends_stream(), "{frames:?}");
}

#[tokio::test]
async fn repeated_and_binary_metadata_keep_their_order_and_bytes() {
    let metadata = [
        ("list", "b"),
        ("list", "a, b"),
        ("raw-bin", "AP8Q"),
        ("raw-bin", "3q2+7w"),
        ("empty", ""),
    ];
    let backend = Backend::start(move |mut call: Incoming| async move {
        let mut head = Response::new(());
        let mut end = trailers(0);
        for (name, value) in metadata {
            head.headers_mut().append(name, value.parse().unwrap());
            end.append(name, value.parse().unwrap());
        }
        call.begin_with(head, false).send_trailers(end).unwrap();
    })
    .await;
    let pillion = proxy_to(&backend, "pooled").await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc_with("echo", &metadata), b"").await.unwrap();
    for headers in [&backend.last_head().headers, &answer.head.headers, &answer.trailers.unwrap()] {
        for (name, expected) in
            [("list", &["b", "a, b"][..]), ("raw-bin", &["AP8Q", "3q2+7w"]), ("empty", &[""])]
        {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), expected, "{name}");
        }
    }
}

#[tokio::test]
async fn requests_that_are_not_grpc_pass_as_well() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let body = call.read().await.unwrap();
        let head = Response::builder()
            .status(if call.head.method == http::Method::PUT { 201 } else { 404 })
            .header("content-length", body.len())
            .body(())
            .unwrap();
        let is_head = call.head.method == http::Method::HEAD;
        let mut down = call.begin_with(head, is_head);
        if !is_head {
            down.send_data(body, true).unwrap();
        }
    })
    .await;
    let pillion = proxy_to(&backend, "fresh").await;
    let client = Client::connect(pillion.address()).await;
    for (method, status) in [("GET", 404), ("HEAD", 404), ("PUT", 201)] {
        let mut head = get("echo");
        *head.method_mut() = method.parse().unwrap();
        head.headers_mut().insert("content-length", 5.into());
        let answer = client.send(head, b"hello").await.unwrap();
        let body = if method == "HEAD" { "" } else { "hello" };
        assert_eq!((answer.head.status.as_u16(), &*answer.body), (status, body.as_bytes()));
        assert_eq!(answer.header("content-length"), Some("5"), "{method}");
        assert_eq!(answer.header("pillion-error"), None);
    }
}

#[tokio::test]
async fn a_call_that_its_caller_resets_is_over_for_the_endpoint_at_once() {
    let backend = Backend::start(Incoming::never).await;
    for (count, connection) in (1..).zip(CONNECTIONS) {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let mut call = client.begin(grpc("echo")).await;
        backend.until("the call has come", |counts| counts.calls == count).await;
        call.body.send_reset(Code::CANCEL);
        backend.until("the call is cancelled", |counts| counts.cancelled == count).await;
        let status = [("service", "echo"), ("grpc_status", "CANCELLED")];
        pillion
            .until_metrics("the call is counted", |m| m.sum("requests_total", &status) == 1.0)
            .await;
        let metrics = pillion.metrics().await;
        assert_eq!(metrics.sum("requests_in_flight", &[]), 0.0);
        assert_eq!(metrics.sum("attempts_total", &[("outcome", "cancelled")]), 1.0);
    }
}

#[tokio::test]
async fn a_caller_that_disconnects_ends_all_its_calls() {
    let backend = Backend::start(Incoming::never).await;
    for (count, connection) in (1..).zip(CONNECTIONS) {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let calls = [client.begin(grpc("echo")).await, client.begin(grpc("echo")).await];
        backend.until("the calls have come", |counts| counts.calls == 2 * count).await;
        drop((client, calls));
        backend.until("the calls are cancelled", |counts| counts.cancelled == 2 * count).await;
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_an_answer_half_way_ends_it_for_the_endpoint() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        down.send_data(Bytes::from_static(b"the first of many"), false).unwrap();
        call.hold(down).await;
    })
    .await;
    for (count, connection) in (1..).zip(CONNECTIONS) {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let call = client.begin(grpc("echo")).await;
        let mut body = soon("the head", call.answer).await.unwrap().into_body();
        soon("a piece", body.data()).await.unwrap().unwrap();
        drop((body, call.body));
        backend.until("the call is cancelled", |counts| counts.cancelled == count).await;
    }
}

/// Begins an answer, and breaks it off with a code once some of it has been read.
async fn broken_off_with(code: Code) -> Backend {
    Backend::start(move |mut call: Incoming| async move {
        let mut down = call.begin();
        down.send_data(Bytes::from_static(b"half"), false).unwrap();
        // The request ends when the caller has read the half.
        call.read().await.unwrap();
        down.send_reset(code);
    })
    .await
}

/// How the body of an answer ends that breaks off after a piece.
async fn end_of_broken_answer(
    client: &Client,
    head: http::Request<()>,
) -> Result<u8, Option<Code>> {
    let mut call = client.begin(head).await;
    let mut body = soon("the head", call.answer).await.unwrap().into_body();
    soon("a piece", body.data()).await.unwrap().unwrap();
    call.body.send_data(Bytes::new(), true).unwrap();
    let end = async {
        read_all(&mut body).await?;
        body.trailers().await
    };
    match soon("the end", end).await {
        Ok(trailers) => {
            Ok(trailers.map_or(0, |t| t["grpc-status"].to_str().unwrap().parse().unwrap()))
        }
        Err(error) => Err(error.reason()),
    }
}

#[tokio::test]
async fn the_code_with_which_an_endpoint_resets_an_answer_is_passed_on() {
    for code in [Code::CANCEL, Code::INTERNAL_ERROR, Code::ENHANCE_YOUR_CALM, Code::from(77)] {
        let backend = broken_off_with(code).await;
        let pillion = proxy_to(&backend, "pooled").await;
        let client = Client::connect(pillion.address()).await;
        assert_eq!(end_of_broken_answer(&client, grpc("echo")).await, Err(Some(code)));
        let metrics = pillion.metrics().await;
        assert_eq!(metrics.sum("attempts_total", &[("outcome", "reset")]), 1.0);
    }
}

#[tokio::test]
async fn an_answer_reset_without_an_error_code_is_still_an_error() {
    let backend = broken_off_with(Code::NO_ERROR).await;
    for connection in CONNECTIONS {
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        // Many clients take a reset with NO_ERROR for the end of the answer.
        assert_eq!(end_of_broken_answer(&client, grpc("echo")).await, Ok(14));
        let end = end_of_broken_answer(&client, get("echo")).await;
        assert_eq!(end, Err(Some(Code::INTERNAL_ERROR)));
    }
}

#[tokio::test]
async fn an_answer_cut_off_with_its_connection_is_an_error() {
    for connection in CONNECTIONS {
        let mut backend = Backend::start(|mut call: Incoming| async move {
            let mut down = call.begin();
            down.send_data(Bytes::from_static(b"half"), false).unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let pillion = proxy_to(&backend, connection).await;
        let client = Client::connect(pillion.address()).await;
        let mut bodies = Vec::new();
        for head in [grpc("echo"), get("echo")] {
            let answer = soon("the head", client.begin(head).await.answer).await.unwrap();
            let mut body = answer.into_body();
            soon("a piece", body.data()).await.unwrap().unwrap();
            bodies.push(body);
        }
        backend.kill().await;
        assert!(soon("the end", bodies[0].data()).await.is_none());
        let trailers = bodies[0].trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["pillion-error"], "upstream_reset");
        let error = soon("the end", bodies[1].data()).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Code::INTERNAL_ERROR));
    }
}

#[tokio::test]
async fn a_half_sent_request_that_is_reset_is_never_a_whole_one_for_the_endpoint() {
    for connection in CONNECTIONS {
        let backend = Backend::echo().await;
        let pillion = proxy_to(&backend, connection).await;
        let mut wire = Wire::connect(pillion.address()).await;
        for count in 1..=10 {
            let stream = count as u32 * 2 - 1;
            let half = &message(&[7; 1000])[..500];
            let head = Frame::headers(0, stream, &grpc_fields("echo"));
            wire.send(&[head, Frame::data(0, stream, half)]).await;
            backend.until("the call has come", |counts| counts.calls == count).await;
            // NO_ERROR, which many servers take for the end of the request.
            wire.send(&[Frame::reset(stream, 0)]).await;
            backend.until("the call is broken off", |counts| counts.cancelled == count).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_comes_in_pieces_is_not_gathered() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut down = call.begin();
        for piece in [b"a", b"b", b"c"] {
            down.send_data(Bytes::from_static(piece), false).unwrap();
            // Goes on when the caller has read the piece.
            let asked = call.body.data().await.unwrap().unwrap();
            call.body.flow_control().release_capacity(asked.len()).unwrap();
        }
        down.send_trailers(trailers(0)).unwrap();
    })
    .await;
    let pillion = proxy_to(&backend, "fresh").await;
    let mut wire = Wire::connect(pillion.address()).await;
    wire.send(&[Frame::headers(0, 1, &grpc_fields("echo"))]).await;
    for piece in [b"a", b"b", b"c"] {
        assert_eq!(wire.until(&[DATA]).await.unwrap().payload, piece);
        wire.send(&[Frame::data(0, 1, b"more")]).await;
    }
    assert!(wire.until(&[HEADERS]).await.unwrap().ends_stream());
}

#[tokio::test]
async fn an_endpoint_that_goes_away_while_it_is_sent_a_request_ends_the_call() {
    let address = serve(|mut wire| async move {
        wire.until(&[DATA]).await;
        wire.abort();
    })
    .await;
    for connection in CONNECTIONS {
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let pillion = Pillion::start(&config, [endpoint("echo", address, "")]).await;
        let client = Client::connect(pillion.address()).await;
        for size in [100, 10_000, 50_000, 200_000, 500_000] {
            let answer = client.send(grpc("echo"), &message(&vec![7; size])).await.unwrap();
            assert_eq!(answer.grpc_status(), Some(14), "{connection}, {size} bytes");
            assert_eq!(answer.header("pillion-error"), Some("upstream_reset"));
        }
    }
}
