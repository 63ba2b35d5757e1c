use std::{future::Future, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that treats each connection like this.
async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// A gRPC server whose every answer is this; without a body the status is among the headers.
async fn grpc_server(status: &'static str, body: Option<&'static [u8]>) -> SocketAddr {
    serve(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let mut response = Response::new(());
            let grpc = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(status),
            )]);
            match body {
                Some(body) => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream.send_data(Bytes::from_static(body), false).unwrap();
                    stream.send_trailers(grpc).unwrap();
                }
                None => {
                    *response.headers_mut() = grpc;
                    respond.send_response(response, true).unwrap();
                }
            }
        }
    })
    .await
}

async fn ask_grpc(status: &'static str, body: Option<&'static [u8]>) -> Result<(), String> {
    let address = grpc_server(status, body).await.into();
    let probe = Probe::Grpc { address, service: String::new() };
    run(&probe, LIMIT).await.map_err(|unwell| unwell.to_string())
}

#[tokio::test]
async fn a_grpc_server_is_well_when_it_says_serving() {
    assert_eq!(ask_grpc("0", Some(&[0, 0, 0, 0, 2, 8, 1])).await, Ok(()));
    for (status, body, expected) in [
        ("0", Some(&[0, 0, 0, 0, 2, 8, 2][..]), "NOT_SERVING"),
        ("0", Some(&[0, 0, 0, 0, 0]), "UNKNOWN"),
        ("12", None, "has no grpc.health.v1.Health; add it, or use kind = \"tcp\""),
        ("5", None, "knows no service \"\""),
        ("14", None, "grpc-status \"14\""),
        ("0", Some(b"hello"), "not an answer of the health service"),
    ] {
        let unwell = ask_grpc(status, body).await.unwrap_err();
        assert!(unwell.contains(expected), "{unwell}");
    }
}

async fn http_server(answer: &'static str) -> Probe {
    let address = serve(move |mut stream| async move {
        let mut request = vec![0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
        assert!(
            request.starts_with("get /health?deep=1 http/1.1\r\nhost: 127.0.0.1:"),
            "{request}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    Probe::Http(format!("http://{address}/health?deep=1").parse().unwrap())
}

#[tokio::test]
async fn a_page_is_well_when_it_answers_2xx() {
    let probe = http_server("HTTP/1.1 204 No Content\r\n\r\n").await;
    run(&probe, LIMIT).await.unwrap();
    for (answer, expected) in [
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "answers 503"),
        ("HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", "answers 301"),
        ("SSH-2.0-OpenSSH\r\n", "invalid"),
        ("", "connection closed"),
    ] {
        let unwell = run(&http_server(answer).await, LIMIT).await.unwrap_err().to_string();
        assert!(unwell.contains(expected), "{unwell}");
    }
}

#[tokio::test]
async fn what_takes_no_connection_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let probe = Probe::Tcp(address.into());
    run(&probe, LIMIT).await.unwrap();
    drop(listener);
    let unwell = run(&probe, LIMIT).await.unwrap_err().to_string();
    assert!(unwell.starts_with(&format!("cannot connect to {address}: ")), "{unwell}");
}

#[tokio::test]
async fn what_does_not_answer_in_time_is_not_well() {
    let silent = serve(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let grpc = Probe::Grpc { address: silent.into(), service: String::new() };
    let http = Probe::Http(format!("http://{silent}/").parse().unwrap());
    for probe in [grpc, http] {
        let unwell = run(&probe, Duration::from_millis(50)).await.unwrap_err().to_string();
        assert_eq!(unwell, "no answer within 50ms");
    }
}

async fn exec(command: &str) -> Result<(), String> {
    run(&Probe::Exec(command.to_owned()), LIMIT).await.map_err(|unwell| unwell.to_string())
}

#[tokio::test]
async fn a_command_is_well_when_it_exits_with_0() {
    assert_eq!(exec("true").await, Ok(()));
    let said = exec("echo no disk >&2; echo more >&2; exit 3").await.unwrap_err();
    assert_eq!(said, "the command ended with exit status: 3: no disk");
    // More than a pipe holds, and what goes on in the background.
    assert_eq!(exec("head -c 1000000 /dev/zero >&2; sleep 100 & true").await, Ok(()));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let (ids, path) = (folder.path().join("ids"), folder.path().display());
    let command = format!("sleep 100 & echo $$ $! > {path}/new; mv {path}/new {path}/ids; wait");
    let probe = Probe::Exec(command);
    let written = async {
        while !ids.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Dropped, as at its limit, once both run.
    tokio::select! {
        () = written => {}
        done = run(&probe, LIMIT) => panic!("{done:?}"),
    }
    let ids = std::fs::read_to_string(ids).unwrap();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(ids.len(), 2);
    for id in ids {
        let stat = format!("/proc/{id}/stat");
        let ended = |stat: String| stat.contains(") Z ");
        while !std::fs::read_to_string(&stat).map_or(true, ended) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_each_second_until_it_is_healthy_and_then_at_its_interval() {
    let check = HealthCheck { interval: Duration::from_secs(60), ..HealthCheck::new(Probe::None) };
    let asked = std::cell::Cell::new(0);
    let ask = || {
        asked.set(asked.get() + 1);
        std::future::ready(if asked.get() <= 10 { Err(Unwell::Late(LIMIT)) } else { Ok(()) })
    };
    let began = tokio::time::Instant::now();
    let mut told = Vec::new();
    let watching = watch_by(ask, &check, Verdict::default(), |verdict, _| {
        told.push((verdict.healthy(), began.elapsed().as_secs_f64()));
    });
    let _ = timeout(Duration::from_secs(200), watching).await;
    let first = |healthy| told.iter().find(|(verdict, _)| *verdict == healthy).unwrap().1;
    assert_eq!(first(None), 0.0, "{told:?}");
    assert!((1.79..2.21).contains(&first(Some(false))), "{told:?}");
    assert!((8.9..11.1).contains(&first(Some(true))), "{told:?}");
    assert!((13..=14).contains(&told.len()), "{told:?}");
}
