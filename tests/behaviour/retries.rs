//! Trying again: where it is proven that no endpoint has worked on the call, and nowhere else.

use std::{net::SocketAddr, time::Duration};

use h2::Reason as Code;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::{Backend, Incoming};
use crate::client::{Client, get, grpc, message};
use crate::program::{Pillion, endpoint};
use crate::raw::{DATA, Frame, HEADERS, serve, serve_tcp};
use crate::wait::soon;

/// `first` is always asked first, `then` where that fails.
async fn proxy_to(first: SocketAddr, then: &Backend, defaults: &str) -> Pillion {
    let config = format!("[defaults]\nfilter = \"version=first;\"\n{defaults}");
    let first = endpoint("echo", first, "version = \"first\"");
    Pillion::start(&config, [first, then.as_endpoint("echo")]).await
}

/// Calls whose first endpoint is dead are answered by the second, in their second attempt.
async fn assert_tried_again(dead: SocketAddr, defaults: &str, reason: &str) {
    assert_so_many_tried_again(5, dead, defaults, reason).await;
}

/// The same where an endpoint takes `connect_timeout` to be found dead, which is long enough for the other one to
/// be connected on a busy machine: one call will do.
async fn assert_one_tried_again(dead: SocketAddr) {
    let defaults = "connect_timeout = \"2s\"";
    assert_so_many_tried_again(1, dead, defaults, "connect_timeout").await;
}

async fn assert_so_many_tried_again(calls: usize, dead: SocketAddr, defaults: &str, reason: &str) {
    let alive = Backend::echo().await;
    for connection in ["fresh", "warm", "pooled"] {
        let before = alive.counts().calls;
        let defaults = format!("connection = \"{connection}\"\n{defaults}");
        let pillion = proxy_to(dead, &alive, &defaults).await;
        let client = Client::connect(pillion.address()).await;
        for _ in 0..calls {
            let answer = client.send(grpc("echo"), &message(b"hello")).await.unwrap();
            assert!(answer.is_ok(), "{connection}: {answer:?}");
            assert_eq!(answer.body, message(b"hello"));
            assert_eq!(alive.last_head().headers["pillion-attempt"], "2");
        }
        assert_eq!(alive.counts().calls - before, calls);
        let calls = calls as f64;
        let metrics = pillion.metrics().await;
        let attempts =
            |outcome| metrics.sum("attempts_total", &[("service", "echo"), ("outcome", outcome)]);
        assert_eq!((attempts(reason), attempts("ok")), (calls, calls), "{connection}");
        let retries = [("service", "echo"), ("reason", reason)];
        assert_eq!(metrics.sum("retries_total", &retries), calls, "{connection}");
        assert_eq!(metrics.sum("requests_total", &[("grpc_status", "OK")]), calls);
    }
}

async fn refusing() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_passed_over() {
    assert_tried_again(refusing().await, "", "connect_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_passed_over_where_tcp_is_all_that_is_waited_for() {
    assert_tried_again(refusing().await, "ready = \"tcp\"", "connect_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_drops_packets_is_passed_over_after_connect_timeout() {
    // The queue of a listener that never accepts is filled: further SYNs go unanswered.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(tcp)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address))
            .await
    {
        queued.push(tcp);
    }
    assert_one_tried_again(address).await;
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_keeps_silent_is_passed_over_after_connect_timeout() {
    let silent = serve_tcp(|tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    assert_one_tried_again(silent).await;
}

#[tokio::test]
async fn an_endpoint_that_speaks_http1_is_passed_over() {
    let old = serve_tcp(|mut tcp| async move {
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        std::future::pending().await
    })
    .await;
    assert_tried_again(old, "", "connect_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_resets_connections_at_once_is_passed_over() {
    let resetting = serve_tcp(|tcp| async move { tcp.set_zero_linger().unwrap() }).await;
    assert_tried_again(resetting, "", "connect_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_closes_connections_at_once_is_passed_over() {
    let closing = serve_tcp(|mut tcp| async move {
        // In good order, after what the proxy has sent.
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.shutdown().await;
        while tcp.read(&mut [0; 1000]).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    assert_tried_again(closing, "", "connect_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_says_goaway_at_once_is_passed_over() {
    let leaving = serve(|mut wire| async move {
        wire.send(&[Frame::go_away(0, 0)]).await;
        while wire.receive().await.is_some() {}
    })
    .await;
    assert_tried_again(leaving, "", "refused").await;
}

#[tokio::test]
async fn a_call_that_an_endpoint_refuses_is_sent_to_another_with_its_body() {
    let refusing = Backend::start(|mut call: Incoming| async move {
        // Refused after all of it has come.
        call.read().await.unwrap();
        call.reset(Code::REFUSED_STREAM);
    })
    .await;
    assert_tried_again(refusing.address(), "", "refused").await;
    assert_eq!(refusing.counts().calls, 15);
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_64_kib_and_not_beyond() {
    let refusing = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        call.reset(Code::REFUSED_STREAM);
    })
    .await;
    let alive = Backend::echo().await;
    let pillion = proxy_to(refusing.address(), &alive, "").await;
    let client = Client::connect(pillion.address()).await;
    let kept = vec![7; 64 << 10];
    let answer = client.send(grpc("echo"), &kept).await.unwrap();
    assert_eq!((&*answer.body, answer.grpc_status()), (&*kept, Some(0)));
    let answer = client.send(grpc("echo"), &vec![7; (64 << 10) + 1]).await.unwrap();
    assert_eq!(answer.header("pillion-error"), Some("upstream_reset"));
    assert_eq!(alive.counts().calls, 1);
}

#[tokio::test]
async fn a_call_that_may_have_been_processed_is_never_tried_again() {
    let alive = Backend::echo().await;
    let reset = Backend::start(|mut call: Incoming| async move {
        call.read().await.unwrap();
        call.reset(Code::INTERNAL_ERROR);
    })
    .await;
    let closing = serve(|mut wire| async move {
        wire.until(&[HEADERS]).await;
        wire.until(&[DATA]).await;
    })
    .await;
    for connection in ["fresh", "warm", "pooled"] {
        for dead in [reset.address(), closing] {
            let pillion = proxy_to(dead, &alive, &format!("connection = \"{connection}\"")).await;
            let client = Client::connect(pillion.address()).await;
            let answer = client.send(grpc("echo"), b"pay").await.unwrap();
            assert_eq!(answer.grpc_status(), Some(14));
            assert_eq!(answer.header("pillion-error"), Some("upstream_reset"));
            let metrics = pillion.metrics().await;
            assert_eq!(metrics.sum("retries_total", &[]), 0.0);
            assert_eq!(metrics.sum("attempts_total", &[("outcome", "reset")]), 1.0);
        }
    }
    assert_eq!(alive.counts().calls, 0);
}

#[tokio::test]
async fn a_call_is_tried_as_often_as_configured_and_on_each_endpoint_once() {
    let mut endpoints = Vec::new();
    let mut refusing = Vec::new();
    for _ in 0..5 {
        let backend = Backend::start(|call: Incoming| async {
            call.reset(Code::REFUSED_STREAM);
        })
        .await;
        endpoints.push(backend.as_endpoint("echo"));
        endpoints.push(backend.as_endpoint("patient"));
        endpoints.push(backend.as_endpoint("once"));
        refusing.push(backend);
    }
    let config = "[service.once]\nattempts = 1\n[service.patient]\nattempts = 9";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    // The last one to refuse is asked once more where no other is left.
    for (service, attempts, most) in [("echo", 3, 1), ("once", 1, 1), ("patient", 6, 2)] {
        let before: Vec<_> = refusing.iter().map(|backend| backend.counts().calls).collect();
        let answer = client.call(service).await;
        assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
        let asked = refusing.iter().zip(before).map(|(b, before)| b.counts().calls - before);
        let asked: Vec<_> = asked.collect();
        assert_eq!(asked.iter().sum::<usize>(), attempts, "{service}: {asked:?}");
        assert!(asked.iter().all(|count| *count <= most), "{service}: {asked:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_grpc_is_tried_again_as_well() {
    let alive = Backend::echo().await;
    let pillion = proxy_to(refusing().await, &alive, "").await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.send(get("echo"), b"").await.unwrap().head.status, 200);
    assert_eq!(alive.counts().calls, 1);
}

#[tokio::test]
async fn an_endpoint_that_dies_among_three_costs_no_call_of_those_that_follow() {
    for connection in ["fresh", "warm", "pooled"] {
        let mut backends = [Backend::echo().await, Backend::echo().await, Backend::echo().await];
        let config = format!("[defaults]\nconnection = \"{connection}\"");
        let endpoints = backends.each_ref().map(|backend| backend.as_endpoint("echo"));
        let pillion = Pillion::start(&config, endpoints).await;
        let client = Client::connect(pillion.address()).await;
        for at in 0..300 {
            if at == 100 {
                backends[1].kill().await;
            }
            let answer = soon("an answer", client.call("echo")).await;
            assert!(answer.is_ok(), "{connection}, call {at}: {answer:?}");
        }
        assert!(pillion.metrics().await.sum("retries_total", &[]) > 0.0, "{connection}");
    }
}
