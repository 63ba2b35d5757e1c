//! Where the time of a call went, as callers and the access log are told.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{io::copy_bidirectional, net::TcpStream, time::sleep};

use crate::backend::{Backend, Incoming};
use crate::client::{Client, grpc, grpc_with};
use crate::errors::refusing;
use crate::program::{Pillion, endpoint};
use crate::raw::serve_tcp;
use crate::wait::until;

/// The address of a relay to `address` that lets each connection wait before it passes anything on.
pub(crate) async fn slow_to_connect(address: SocketAddr, delay: Duration) -> SocketAddr {
    serve_tcp(move |mut near| async move {
        sleep(delay).await;
        if let Ok(mut far) = TcpStream::connect(address).await {
            // Either side may leave when it has had enough.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    })
    .await
}

/// Answers the head of a call at once, and its body after `delay`.
async fn slow_to_end(delay: Duration) -> Backend {
    Backend::start(move |mut call: Incoming| async move {
        let mut answer = call.begin();
        sleep(delay).await;
        let _ = answer.send_trailers(crate::backend::trailers(0));
    })
    .await
}

/// The only line of the access log, read as JSON.
async fn only_line(pillion: &Pillion) -> Value {
    until("the line is written", async || pillion.output().contains('\n')).await;
    serde_json::from_str(pillion.output().lines().next().unwrap()).unwrap()
}

#[tokio::test]
async fn each_part_of_a_call_is_told_with_the_attempt_it_belongs_to() {
    let backend = slow_to_end(Duration::from_millis(200)).await;
    let slow = slow_to_connect(backend.address(), Duration::from_millis(100)).await;
    let dead = refusing().await;
    let endpoints = [
        endpoint("echo", dead, "version = \"first\""),
        endpoint("echo", slow, "version = \"second\""),
    ];
    let config = "access_log = \"json\"\n[defaults]\nfilter = \"version=first;\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    let line = only_line(&pillion).await;
    let attempts = line["spent"]["attempts"].as_array().unwrap();
    let told = attempts.iter().map(|attempt| {
        (attempt["endpoint"].as_str().unwrap().to_owned(), attempt["outcome"].as_str().unwrap())
    });
    let expected = [(dead.to_string(), "connect_failed"), (slow.to_string(), "ok")];
    assert_eq!(told.collect::<Vec<_>>(), expected, "{line}");
    let ms = |part: &str| attempts[1][part].as_f64().unwrap();
    assert!(ms("connect_ms") >= 100.0 && ms("body_ms") >= 190.0, "{line}");
    assert_eq!(attempts[0].get("first_byte_ms"), None, "it was never connected: {line}");
    let parts = ["pause_ms", "connect_ms", "first_byte_ms", "body_ms"];
    let parts = attempts.iter().flat_map(|attempt| parts.map(|part| attempt[part].as_f64()));
    let sum = parts.flatten().sum::<f64>() + line["spent"]["resolve_ms"].as_f64().unwrap_or(0.0);
    let whole = line["duration_ms"].as_f64().unwrap();
    assert!((sum - whole).abs() < 0.1, "the parts add up to {sum}, the whole is {whole}: {line}");
}

#[tokio::test]
async fn a_caller_that_asks_is_told_where_the_time_went() {
    let backend = Backend::echo().await;
    let slow = slow_to_connect(backend.address(), Duration::from_millis(100)).await;
    let pillion = Pillion::start("", [endpoint("echo", slow, "")]).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc_with("echo", &[("pillion-explain", "1")]), b"").await.unwrap();
    let why = answer.header("pillion-why").unwrap();
    for part in [format!("; {slow} connect="), " first_byte=".to_owned(), " attempts=1 ".to_owned()]
    {
        assert!(why.contains(&part), "{part} is not in {why}");
    }
    let silent = client.send(grpc("echo"), b"").await.unwrap();
    assert_eq!(silent.header("pillion-why"), None);
}

#[tokio::test]
async fn a_call_that_ran_out_of_time_says_where_it_was_spent() {
    let never = Backend::start(Incoming::never).await;
    let pillion = Pillion::start("", [never.as_endpoint("never")]).await;
    let client = Client::connect(pillion.address()).await;
    // Long enough to be connected meanwhile.
    let head = grpc_with("never", &[("grpc-timeout", "2S")]);
    let answer = client.send(head, b"").await.unwrap();
    let message = answer.header("grpc-message").unwrap();
    assert!(message.contains("in attempt 1, on "), "{message}");
    assert!(message.contains(" cancelled connect="), "{message}");
    assert!(message.contains(" first_byte="), "{message}");
}
