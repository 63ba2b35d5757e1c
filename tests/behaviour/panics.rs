//! Mistakes of the program itself: each ends what it happened in, is told once, and nothing else notices.
//!
//! A build for tests panics where it is asked to (`src/panics/rehearsal.rs`); others cannot.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
};

use bytes::Bytes;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Client, get, grpc, message};
use crate::program::{Pillion, Program};
use crate::wait::{soon, until};

/// Says where the next panic is to be.
struct Rehearsal(TempDir);

impl Rehearsal {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("place")
    }

    /// A program that panics where it is told to.
    fn program(&self, config: &str) -> Program {
        let variable = format!("PILLION_REHEARSE={}", self.file().display());
        Program::new(config).by(&["env", &variable])
    }

    /// The next to come to `place` panics.
    fn at(&self, place: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, place).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    async fn happened(&self) {
        until("the panic has happened", async || !Path::exists(&self.file())).await;
    }
}

/// Begins each answer at once, and ends it when the call has come to its end.
async fn prompt() -> Backend {
    Backend::start(|mut call: Incoming| async move {
        let mut answer = call.begin();
        let Ok(body) = call.read().await else { return };
        let _ = answer.send_data(body, false);
        let _ = answer.send_trailers(trailers(0));
    })
    .await
}

/// How many lines tell of a panic of this task, each with its place.
fn told(pillion: &Pillion, task: &str) -> usize {
    let log = pillion.log();
    let lines = log.lines().filter(|line| line.contains("rehearsed: "));
    lines
        .inspect(|line| assert!(line.contains("at=\"src/"), "{line}"))
        .filter(|line| line.contains(&format!("task=\"{task}\"")))
        .count()
}

#[tokio::test]
async fn a_panic_ends_its_call_and_no_other_of_its_connection() {
    let (backend, rehearsal) = (prompt().await, Rehearsal::new());
    // One place beside the call that goes on all the time: one that is not given back would be missed.
    let config = "max_in_flight = 2\n[defaults.limits]\nmax_in_flight = 2";
    let program = rehearsal.program(config).endpoints([backend.as_endpoint("echo")]);
    let pillion = program.start().await;
    let client = Client::connect(pillion.address()).await;
    let mut other = client.begin(grpc("echo")).await;
    let (head, mut body) = soon("its head", &mut other.answer).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    let files = pillion.open_files();

    for (number, place) in ["call begins", "call waits", "call is answered"].iter().enumerate() {
        rehearsal.at(place);
        let answer = client.call("echo").await;
        assert_eq!((answer.head.status.as_u16(), answer.grpc_status()), (200, Some(13)), "{place}");
        assert_eq!(answer.header("pillion-error"), Some("internal"), "{place}");
        let said = answer.header("grpc-message").unwrap();
        assert!(said.contains("its log says where") && !said.contains("src/"), "{place}: {said}");
        rehearsal.at(place);
        match client.send(get("echo"), b"").await {
            Ok(answer) => {
                assert_eq!(answer.head.status, 500, "{place}");
                assert_eq!(answer.header("pillion-error"), Some("internal"), "{place}");
            }
            Err(error) => {
                assert_eq!(*place, "call is answered");
                assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "never a clean end");
            }
        }
        until("each is told", async || told(&pillion, "call") >= 2 * (number + 1)).await;
        assert_eq!(told(&pillion, "call"), 2 * (number + 1), "each once");
        assert!(client.call("echo").await.is_ok(), "after a panic where a {place}");
    }

    other.body.send_data(Bytes::from(message(b"still here")), true).unwrap();
    let rest = crate::client::read_all(&mut body).await.unwrap();
    assert_eq!(rest, message(b"still here"), "the call beside them went on");
    assert_eq!(soon("its trailers", body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");

    let all = |metrics: &crate::metrics::Metrics, name| metrics.sum(name, &[("service", "echo")]);
    pillion
        .until_metrics("all is given back", |metrics| {
            all(metrics, "requests_in_flight") == 0.0 && all(metrics, "upstream_connections") == 0.0
        })
        .await;
    backend.until("its connections are closed", |counts| counts.open == 0).await;
    until("files are closed", async || pillion.open_files() < files).await;
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("panics_total", &[("task", "call")]), 6.0);
    assert_eq!(metrics.sum("panics_total", &[]), 6.0);
    assert_eq!(metrics.sum("requests_total", &[("error", "internal")]), 6.0);
    assert_eq!(metrics.sum("limited_total", &[]), 0.0);
}

#[tokio::test]
async fn a_panic_of_a_connection_closes_it_and_no_other() {
    let (backend, rehearsal) = (Backend::echo().await, Rehearsal::new());
    let program = rehearsal.program("").endpoints([backend.as_endpoint("echo")]);
    let pillion = program.start().await;
    let (mut one, two) =
        (Client::connect(pillion.address()).await, Client::connect(pillion.address()).await);
    assert!(one.call("echo").await.is_ok() && two.call("echo").await.is_ok());
    rehearsal.at("connection");
    assert!(one.send(grpc("echo"), b"").await.is_err());
    let _ = one.ended().await;
    assert!(two.call("echo").await.is_ok());
    until("it is told", async || told(&pillion, "connection") > 0).await;
    assert_eq!(told(&pillion, "connection"), 1);
    pillion
        .until_metrics("one connection is left", |metrics| {
            metrics.sum("downstream_connections", &[]) == 1.0
        })
        .await;
    assert_eq!(pillion.metrics().await.sum("panics_total", &[("task", "connection")]), 1.0);
}

#[tokio::test]
async fn no_worker_and_no_listener_falls_silent_after_a_panic() {
    let (backend, rehearsal) = (Backend::echo().await, Rehearsal::new());
    let program = rehearsal.program("").endpoints([backend.as_endpoint("echo")]);
    let pillion = program.start().await;
    let before = Client::connect(pillion.address()).await;
    assert!(before.call("echo").await.is_ok());
    for task in ["worker", "accept"] {
        rehearsal.at(task);
        // What came at that moment is lost; whoever comes then is served, whichever worker is theirs.
        drop(tokio::net::TcpStream::connect(pillion.address()).await.unwrap());
        rehearsal.happened().await;
        for _ in 0..6 {
            let client = Client::connect(pillion.address()).await;
            assert!(client.call("echo").await.is_ok());
        }
        until("it is told", async || told(&pillion, task) > 0).await;
        assert_eq!(told(&pillion, task), 1);
    }
    assert!(before.call("echo").await.is_ok());
}

#[tokio::test]
async fn what_is_not_a_call_goes_on_after_a_panic() {
    let (one, two) = (Backend::echo().await, Backend::echo().await);
    let rehearsal = Rehearsal::new();
    let pillion = rehearsal.program("").endpoints([one.as_endpoint("echo")]).start().await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("echo").await.from(), one.address());

    rehearsal.at("memory");
    rehearsal.happened().await;
    rehearsal.at("reload");
    pillion.signal(Signal::HUP);
    rehearsal.happened().await;
    pillion.signal(Signal::HUP);
    let reloads = [("result", "ok")];
    pillion.until_metrics("it reloads", |m| m.sum("config_reloads_total", &reloads) == 1.0).await;

    rehearsal.at("discovery");
    pillion.set_endpoints([two.as_endpoint("echo")]).await;
    rehearsal.happened().await;
    until("the new endpoint is called", async || client.call("echo").await.from() == two.address())
        .await;
    for task in ["memory", "reload", "discovery"] {
        until("it is told", async || told(&pillion, task) > 0).await;
        assert_eq!(told(&pillion, task), 1, "{}", pillion.log());
        assert_eq!(pillion.metrics().await.sum("panics_total", &[("task", task)]), 1.0);
    }
}

#[tokio::test]
async fn a_worker_that_is_lost_ends_the_process_in_good_order() {
    let (backend, rehearsal) = (Backend::echo().await, Rehearsal::new());
    rehearsal.at("worker's thread");
    let program = rehearsal.program("").endpoints([backend.as_endpoint("echo")]);
    let mut pillion = program.start_unready().await;
    let status: ExitStatus = pillion.ended().await;
    assert_eq!(status.code(), Some(1), "so that it is started again");
    let log = pillion.log();
    assert!(log.contains("a worker has ended by a panic: draining"), "{log}");
    assert!(log.contains("drained") && log.contains("error: a worker has ended"), "{log}");
}
