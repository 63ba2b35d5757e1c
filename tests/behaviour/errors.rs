//! What a caller is told when the proxy itself ends a call, as gRPC and as plain HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use percent_encoding::percent_decode_str;
use tokio::io::AsyncWriteExt;

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, get, grpc, grpc_with};
use crate::program::{Pillion, Program, endpoint};
use crate::raw::serve_tcp;

/// A port that nobody listens on.
pub(crate) async fn refusing() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Speaks HTTP/1.1.
async fn old_server() -> SocketAddr {
    serve_tcp(|mut tcp| async move {
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        tcp.write_all(answer).await.unwrap();
        // Not closed at once, which might reset the connection before the answer is read.
        std::future::pending::<()>().await;
    })
    .await
}

/// The answers to a gRPC call and to another request that carry `headers`.
async fn both(client: &Client, authority: &str, headers: &[(&str, &str)]) -> [Answer; 2] {
    let with = |mut head: Request<()>| {
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            head.headers_mut().append(name, value.parse().unwrap());
        }
        head
    };
    [
        client.send(with(grpc(authority)), b"body").await.unwrap(),
        client.send(with(get(authority)), b"").await.unwrap(),
    ]
}

fn assert_refused([grpc, http]: [Answer; 2], reason: &str, status: u8, http_status: u16) {
    assert_eq!(grpc.head.status, 200, "{reason}");
    assert_eq!(grpc.head.headers["content-type"], "application/grpc");
    assert!(grpc.body.is_empty() && grpc.trailers.is_none(), "{reason}: trailers only");
    assert_eq!(grpc.grpc_status(), Some(status), "{reason}: {grpc:?}");
    assert_eq!(grpc.header("pillion-error"), Some(reason));
    let message = grpc.header("grpc-message").unwrap();
    assert!(message.len() > 20, "{reason}: {message:?}");

    assert_eq!(http.head.status, http_status, "{reason}: {http:?}");
    assert!(http.head.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(http.header("pillion-error"), Some(reason));
    assert_eq!(http.header("grpc-status"), None);
    assert!(http.body.len() > 20 && http.body.ends_with(b"\n"), "{reason}: {:?}", http.body);
}

/// The message names the service.
fn assert_names(answers: &[Answer; 2], service: &str) {
    let message = percent_decode_str(answers[0].header("grpc-message").unwrap());
    let message = message.decode_utf8().unwrap();
    assert!(message.contains(&format!("service {service}")), "{message}");
    let text = String::from_utf8_lossy(&answers[1].body);
    assert!(text.contains(&format!("service {service}")), "{text}");
}

#[tokio::test]
async fn every_reason_has_its_status_and_a_text_that_names_the_service() {
    let never = Backend::start(Incoming::never).await;
    let resets = Backend::start(|call: Incoming| async {
        call.reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let endpoints = [
        never.as_endpoint("slow"),
        resets.as_endpoint("resets"),
        endpoint("gone", refusing().await, ""),
        endpoint("old", old_server().await, ""),
    ];
    let config = "[service.slow]\ntimeout = \"100ms\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let large = "x".repeat(70_000);
    for (reason, authority, header, status, http_status) in [
        ("bad_authority", "slow:v1", None, 3, 400),
        ("bad_filter", "slow", Some(("pillion-filter", "version in (")), 3, 400),
        ("no_endpoints", "nowhere", None, 14, 503),
        ("no_match", "slow", Some(("pillion-filter", "version=v9")), 14, 503),
        ("connect_failed", "gone", None, 14, 503),
        ("upstream_reset", "resets", None, 14, 502),
        ("upstream_protocol", "old", None, 13, 502),
        ("deadline_exceeded", "slow", None, 4, 504),
        ("overloaded", "slow", Some(("large", &*large)), 8, 429),
    ] {
        let answers = both(&client, authority, header.as_slice()).await;
        if !matches!(reason, "bad_authority" | "bad_filter" | "overloaded") {
            assert_names(&answers, authority);
        }
        assert_refused(answers, reason, status, http_status);
    }
    let pinned = both(&client, "slow@unheard-of", &[]).await;
    assert_names(&pinned, "slow");
    assert_refused(pinned, "no_match", 14, 503);
}

#[tokio::test]
async fn a_service_that_no_registry_could_be_asked_for_is_unavailable() {
    let config = format!("[[source]]\nendpoints = [\"http://{}\"]", refusing().await);
    let pillion = Program::new(&config).start_unready().await;
    let client = Client::connect(pillion.address()).await;
    let answers = both(&client, "orders", &[]).await;
    assert_names(&answers, "orders");
    assert_refused(answers, "registry_unavailable", 14, 503);
    assert_eq!(pillion.get("/ready").await.status, 503);
}

#[tokio::test]
async fn a_message_is_percent_encoded() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let head = grpc_with("echo", &[("pillion-node", "100%")]);
    let answer = client.send(head, b"").await.unwrap();
    let message = answer.header("grpc-message").unwrap();
    assert!(message.contains("100%25"), "{message}");
    let decoded = percent_decode_str(message).decode_utf8().unwrap();
    assert!(decoded.contains("\"100%\""), "{decoded}");
}

#[tokio::test]
async fn an_error_of_the_endpoint_passes_untouched_and_is_not_called_ours() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut end = trailers(14);
        end.insert("grpc-message", "my own %E2%98%83".parse().unwrap());
        let mut down = call.begin();
        down.send_data(Bytes::from_static(b"half"), false).unwrap();
        down.send_trailers(end).unwrap();
    })
    .await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let answer = Client::connect(pillion.address()).await.call("echo").await;
    assert_eq!((&*answer.body, answer.grpc_status()), (&b"half"[..], Some(14)));
    assert_eq!(answer.header("grpc-message"), Some("my own %E2%98%83"));
    assert_eq!(answer.header("pillion-error"), None);
    let status = [("grpc_status", "UNAVAILABLE"), ("error", "")];
    assert_eq!(pillion.metrics().await.sum("requests_total", &status), 1.0);
    assert_eq!(backend.counts().calls, 1, "not tried again");
}
