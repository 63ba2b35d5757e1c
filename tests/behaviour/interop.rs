//! gRPC as its libraries speak it: tonic and Python's grpcio, each as client and as server.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, metadata::MetadataValue};

use crate::program::{Pillion, endpoint};
use crate::python::{PythonServer, call_in_every_way};
use crate::tonic_peer::{TonicClient, TonicServer};
use crate::wait::{soon, until};

/// What a client gets from every server.
pub(crate) fn expected() -> Value {
    json!({
        "unary": {
            "reply": "hello",
            "metadata": {"echo-text": ["a", "b, c"], "echo-raw-bin": ["00ff10"]},
        },
        "download": [70_000, 70_000, 70_000, 70_000, 70_000],
        "broken_download": {"messages": 3, "code": 10, "message": "as asked"},
        "upload": "5 350000",
        "chat": {"initial": "first", "replies": ["one", "two", "bye"]},
        "error": {"code": 9, "message": "50% of ünïcode ☃\n\ttab", "details": "deadbeef"},
        "missing_method": 12,
        "large": true,
        "cancel": true,
    })
}

/// What Python gets. tonic has its own idea of a passed deadline: CANCELLED, from its own timer.
pub(crate) fn expected_by_python() -> Value {
    let mut expected = expected();
    expected["deadline"] = json!(4);
    expected
}

async fn proxy_to(server: SocketAddr, connection: &str) -> Pillion {
    let config = format!("[defaults]\nconnection = \"{connection}\"");
    Pillion::start(&config, [endpoint("echo", server, "")]).await
}

#[tokio::test]
async fn tonic_calls_tonic() {
    let server = TonicServer::start().await;
    let pillion = proxy_to(server.address(), "fresh").await;
    assert_eq!(tonic_calls_in_every_way(pillion.address()).await, expected());
}

#[tokio::test]
async fn tonic_calls_python() {
    let server = PythonServer::start("python");
    let pillion = proxy_to(server.address(), "pooled").await;
    assert_eq!(tonic_calls_in_every_way(pillion.address()).await, expected());
}

#[tokio::test]
async fn python_calls_tonic() {
    let server = TonicServer::start().await;
    let pillion = proxy_to(server.address(), "warm").await;
    assert_eq!(call_in_every_way(pillion.address(), "echo").await, expected_by_python());
}

#[tokio::test]
async fn python_calls_python() {
    let server = PythonServer::start("python");
    let pillion = proxy_to(server.address(), "fresh").await;
    assert_eq!(call_in_every_way(pillion.address(), "echo").await, expected_by_python());
}

#[tokio::test]
async fn an_error_of_the_proxy_is_a_grpc_status_for_tonic_and_for_python() {
    let pillion = Pillion::start("", []).await;
    let mut client = TonicClient::connect(pillion.address(), "nowhere").await;
    let status = client.unary("Unary", Request::new(Bytes::new())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("service nowhere"), "{}", status.message());
    assert_eq!(status.metadata().get("pillion-error").unwrap(), "no_endpoints");
}

/// The same as `tests/peers/echo_client.py`, but for the deadline.
pub(crate) async fn tonic_calls_in_every_way(proxy: SocketAddr) -> Value {
    let mut client = TonicClient::connect(proxy, "echo").await;
    json!({
        "unary": unary(&mut client).await,
        "download": download(&mut client).await,
        "broken_download": broken_download(&mut client).await,
        "upload": upload(&mut client).await,
        "chat": chat(&mut client).await,
        "error": error(&mut client).await,
        "missing_method": missing_method(&mut client).await,
        "large": large(&mut client).await,
        "cancel": cancel(&mut client).await,
    })
}

async fn unary(client: &mut TonicClient) -> Value {
    let mut request = Request::new(Bytes::from_static(b"hello"));
    let metadata = request.metadata_mut();
    metadata.append("echo-text", "a".parse().unwrap());
    metadata.append("echo-text", "b, c".parse().unwrap());
    metadata.append_bin("echo-raw-bin", MetadataValue::from_bytes(b"\x00\xff\x10"));
    let response = client.unary("Unary", request).await.unwrap();
    let metadata = response.metadata();
    let texts = metadata.get_all("echo-text").iter().map(|value| value.to_str().unwrap());
    let texts: Vec<_> = texts.collect();
    let raw = metadata.get_all_bin("echo-raw-bin").iter().map(|v| hex(&v.to_bytes().unwrap()));
    let raw: Vec<_> = raw.collect();
    json!({
        "reply": text(response.get_ref()),
        "metadata": {"echo-text": texts, "echo-raw-bin": raw},
    })
}

async fn download(client: &mut TonicClient) -> Value {
    let messages = client.download("5 70000 0").await.unwrap();
    messages.map(|message| json!(message.unwrap().len())).collect::<Vec<_>>().await.into()
}

async fn broken_download(client: &mut TonicClient) -> Value {
    let mut stream = client.download("3 10 10").await.unwrap();
    let mut messages = 0;
    loop {
        match stream.message().await {
            Ok(Some(_)) => messages += 1,
            Ok(None) => return json!({"messages": messages, "code": 0}),
            Err(status) => {
                let (code, message) = (status.code() as i32, status.message());
                return json!({"messages": messages, "code": code, "message": message});
            }
        }
    }
}

async fn upload(client: &mut TonicClient) -> Value {
    let messages = stream::repeat(Bytes::from(vec![b'x'; 70_000])).take(5);
    text(&client.upload(messages).await.unwrap()).into()
}

async fn chat(client: &mut TonicClient) -> Value {
    let (say, said) = mpsc::unbounded_channel();
    // Nothing has been said yet: this waits for ever if initial metadata wait for a message.
    let answer = soon("initial metadata", client.chat(UnboundedReceiverStream::new(said))).await;
    let answer = answer.unwrap();
    let initial = answer.metadata().get("echo-text").unwrap().to_str().unwrap().to_owned();
    let mut heard = answer.into_inner();
    let mut replies = Vec::new();
    for word in ["one", "two"] {
        say.send(Bytes::from_static(word.as_bytes())).unwrap();
        replies.push(text(&soon("a reply", heard.message()).await.unwrap().unwrap()));
    }
    drop(say);
    while let Some(reply) = soon("the end", heard.message()).await.unwrap() {
        replies.push(text(&reply));
    }
    json!({"initial": initial, "replies": replies})
}

async fn error(client: &mut TonicClient) -> Value {
    let mut request = Request::new(Bytes::new());
    let metadata = request.metadata_mut();
    metadata.insert("status", "9".parse().unwrap());
    let message = "50% of ünïcode \u{2603}\n\ttab";
    metadata.insert_bin("message-bin", MetadataValue::from_bytes(message.as_bytes()));
    metadata.insert_bin("details-bin", MetadataValue::from_bytes(b"\xde\xad\xbe\xef"));
    let status = client.unary("Unary", request).await.unwrap_err();
    let (code, details) = (status.code() as i32, hex(status.details()));
    json!({"code": code, "message": status.message(), "details": details})
}

async fn missing_method(client: &mut TonicClient) -> Value {
    let status = client.unary("Missing", Request::new(Bytes::new())).await.unwrap_err();
    json!(status.code() as i32)
}

async fn large(client: &mut TonicClient) -> Value {
    let message = Bytes::from((0..=255).collect::<Vec<u8>>().repeat(16 << 12));
    let reply = client.unary("Unary", Request::new(message.clone())).await.unwrap();
    json!(*reply.get_ref() == message)
}

async fn cancel(client: &mut TonicClient) -> Value {
    let mut messages = client.download("1000000 10000 0").await.unwrap();
    messages.message().await.unwrap();
    drop(messages);
    until("the server sees that the download was given up", async || {
        let count = client.unary("Cancelled", Request::new(Bytes::new())).await.unwrap();
        count.get_ref() != "0"
    })
    .await;
    json!(true)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
