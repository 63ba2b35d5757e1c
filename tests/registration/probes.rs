//! Healthy or not: each kind of probe, on the program itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::backend::{Backend, Incoming, trailers};
use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::site::{record, register, report, source, until_state};
use crate::wait::until;

/// A program whose registration has this probe.
async fn probed(etcd: &Etcd, health: &str) -> Pillion {
    let health = format!(
        "{health}, interval = \"100ms\", timeout = \"5s\", healthy_after = 2, unhealthy_after = 2"
    );
    let config = source(&[etcd.url()], "") + &register("").replace("kind = \"none\"", &health);
    Program::new(&config).start().await
}

/// It comes and goes with what the probe asks.
async fn follows(etcd: &Etcd, pillion: &Pillion, mut set: impl FnMut(bool)) {
    until_state(pillion, "unhealthy").await;
    for _ in 0..2 {
        assert_eq!(record(etcd).await, None);
        set(true);
        until("it is registered", async || {
            record(etcd).await.is_some_and(|record| record.is_ours())
        })
        .await;
        until_state(pillion, "registered").await;
        set(false);
        until("it is taken out", async || record(etcd).await.is_none()).await;
        until_state(pillion, "unhealthy").await;
    }
}

#[tokio::test]
async fn a_command_that_exits_with_0_is_healthy() {
    let etcd = Etcd::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up");
    let command = format!("test -e {} || {{ echo not up >&2; false; }}", path.display());
    let pillion = probed(&etcd, &format!("kind = \"exec\", target = {command:?}")).await;
    follows(&etcd, &pillion, |up| match up {
        true => std::fs::write(&path, "").unwrap(),
        false => std::fs::remove_file(&path).unwrap(),
    })
    .await;
    let problem = report(&pillion).await["problem"].to_string();
    assert!(problem.contains("exit status: 1: not up"), "{problem}");
    let labels = [("state", "unhealthy")];
    assert_eq!(pillion.metrics().await.sum("registration_state", &labels), 1.0);
}

#[tokio::test]
async fn a_page_that_answers_2xx_is_healthy() {
    let etcd = Etcd::start().await;
    let up = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let answers = Arc::clone(&up);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = if answers.load(Relaxed) { "200 OK" } else { "503 Later" };
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let pillion = probed(&etcd, &format!("kind = \"http\", target = {url:?}")).await;
    follows(&etcd, &pillion, |healthy| up.store(healthy, Relaxed)).await;
}

#[tokio::test]
async fn a_server_that_says_serving_is_healthy() {
    let etcd = Etcd::start().await;
    let up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&up);
    let backend = Backend::start(move |mut call: Incoming| {
        let status = if answers.load(Relaxed) { 1 } else { 2 };
        async move {
            assert_eq!(call.head.uri.path(), "/grpc.health.v1.Health/Check");
            let asked = call.read().await.unwrap();
            assert_eq!(&asked[5..], b"\x0a\x03pay");
            let mut down = call.begin_with(Response::new(()), false);
            let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
            down.send_data(message, false).unwrap();
            down.send_trailers(trailers(0)).unwrap();
        }
    })
    .await;
    let target = format!("{}/pay", backend.address());
    let pillion = probed(&etcd, &format!("kind = \"grpc\", target = {target:?}")).await;
    follows(&etcd, &pillion, |healthy| up.store(healthy, Relaxed)).await;
    assert!(report(&pillion).await["problem"].to_string().contains("NOT_SERVING"));
}

#[tokio::test]
async fn what_takes_connections_is_healthy() {
    let etcd = Etcd::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let mut listener = Some(free);
    drop(listener.take());
    let pillion = probed(&etcd, &format!("kind = \"tcp\", target = \"{address}\"")).await;
    follows(&etcd, &pillion, |up| {
        listener = up.then(|| std::net::TcpListener::bind(address).unwrap());
    })
    .await;
}
