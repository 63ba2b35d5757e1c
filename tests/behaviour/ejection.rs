//! Endpoints that are sick are left, and taken back when they are well.

use std::{collections::HashMap, net::SocketAddr, sync::atomic::Ordering::Relaxed};

use futures_util::{StreamExt, stream};

use crate::backend::{Backend, Incoming};
use crate::client::{Client, grpc, message};
use crate::program::{Pillion, endpoint};
use crate::tonic_peer::{Mood, TonicServer};
use crate::wait::until;

/// A gRPC server whose every n-th call fails, or none.
struct Peer {
    server: TonicServer,
    mood: Mood,
}

impl Peer {
    async fn several(count: usize) -> Vec<Self> {
        let mut peers = Vec::new();
        for _ in 0..count {
            let mood = Mood::default();
            peers.push(Self { server: TonicServer::start_with(mood.clone()).await, mood });
        }
        peers
    }

    fn as_endpoint(&self) -> String {
        endpoint("echo", self.address(), "")
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on each call of so many fails; 0 for none.
    fn fail_each(&self, every: usize) {
        self.mood.fails.store(every, Relaxed);
    }

    /// From now on each call takes so long.
    fn take(&self, millis: usize) {
        self.mood.millis.store(millis, Relaxed);
    }

    fn calls(&self) -> usize {
        self.mood.calls.load(Relaxed)
    }
}

/// Calls one after the other on each of a few connections, and how they ended.
struct Load<'a> {
    pillion: &'a Pillion,
    clients: Vec<Client>,
    calls: usize,
    failed: usize,
}

impl<'a> Load<'a> {
    async fn new(pillion: &'a Pillion) -> Self {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Client::connect(pillion.address()).await);
        }
        Self { pillion, clients, calls: 0, failed: 0 }
    }

    async fn some(&mut self, calls: usize) {
        let clients = &self.clients;
        let fails =
            |at: usize| async move { !clients[at % clients.len()].call("echo").await.is_ok() };
        let failed: Vec<bool> =
            stream::iter(0..calls).map(fails).buffer_unordered(8).collect().await;
        self.calls += calls;
        self.failed += failed.into_iter().filter(|failed| *failed).count();
    }

    /// Calls until the endpoint is in this state.
    async fn until(&mut self, address: SocketAddr, state: &str) {
        let what = format!("{address} is {state}");
        until(&what, async || {
            self.some(40).await;
            states(self.pillion).await[&address] == state
        })
        .await;
    }
}

/// State of each endpoint of `echo`.
async fn states(pillion: &Pillion) -> HashMap<SocketAddr, String> {
    let service = pillion.get("/services/echo").await.json();
    let endpoints = service["endpoints"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    endpoints.map(|e| (text(&e["address"]).parse().unwrap(), text(&e["state"]))).collect()
}

async fn ejections(pillion: &Pillion, reason: &str) -> f64 {
    let labels = [("service", "echo"), ("reason", reason)];
    pillion.metrics().await.sum("ejections_total", &labels)
}

async fn logs(pillion: &Pillion, words: &str) {
    until(words, async || pillion.log().contains(words)).await;
}

const POOLED: &str = "[defaults]\nconnection = \"pooled\"\n";

#[tokio::test]
async fn an_endpoint_that_fails_each_call_is_left_and_tried_by_one_call_until_it_is_well() {
    let peers = Peer::several(3).await;
    let config = format!("{POOLED}[defaults.eject]\nbase = \"1500ms\"\nmax = \"1500ms\"");
    let endpoints = peers.iter().map(Peer::as_endpoint);
    let pillion = Pillion::start(&config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    let sick = peers[0].address();
    load.some(60).await;
    assert_eq!((load.failed, peers[0].calls() > 10), (0, true));

    peers[0].fail_each(1);
    load.until(sick, "ejected").await;
    // Those in flight when the fifth failed may have failed as well.
    assert!((5..=13).contains(&load.failed), "{}", load.failed);
    assert!(ejections(&pillion, "consecutive_errors").await >= 1.0);
    let service = pillion.get("/services/echo").await.json();
    let shown = service["endpoints"].as_array().unwrap().iter();
    let why: Vec<_> = shown.filter_map(|endpoint| endpoint["reason"].as_str()).collect();
    assert!(why[0].starts_with("ejected by consecutive_errors"), "{why:?}");
    let why = pillion.get("/why?authority=echo").await.json();
    assert_eq!(why["candidates"].as_array().unwrap().len(), 2, "{why}");
    assert!(why.to_string().contains("ejected by consecutive_errors"), "{why}");
    logs(&pillion, "answered UNAVAILABLE, INTERNAL or UNKNOWN").await;

    // Each time that its time is over one call tries it, and no more.
    let (failed, calls) = (load.failed, peers[0].calls());
    let before = ejections(&pillion, "consecutive_errors").await;
    until("it has been tried three times", async || {
        load.some(40).await;
        ejections(&pillion, "consecutive_errors").await >= before + 3.0
    })
    .await;
    let tried = peers[0].calls() - calls;
    assert_eq!(load.failed - failed, tried);
    assert!((3..=4).contains(&tried), "{tried}");

    peers[0].fail_each(0);
    load.until(sick, "ready").await;
    let (failed, calls) = (load.failed, peers[0].calls());
    load.some(120).await;
    assert!(peers[0].calls() - calls > 20);
    assert!(load.failed - failed <= 1, "one may have tried it before it was well");
}

#[tokio::test]
async fn an_endpoint_that_fails_a_tenth_of_its_calls_is_left_and_taken_back_and_callers_see_little()
{
    let peers = Peer::several(3).await;
    let config = format!(
        "{POOLED}[defaults.retry]\non = [\"unavailable\"]\n[defaults.eject]\nbase = \"2s\"\nmax = \"2s\""
    );
    let endpoints = peers.iter().map(Peer::as_endpoint);
    let pillion = Pillion::start(&config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    let sick = peers[1].address();
    load.some(400).await;

    peers[1].fail_each(10);
    let before = load.calls;
    load.until(sick, "ejected").await;
    let until_left = load.calls - before;
    let calls = peers[1].calls();
    load.some(40).await;
    assert!(peers[1].calls() - calls <= 1, "it is left");
    assert!(ejections(&pillion, "failure_rate").await >= 1.0);
    logs(&pillion, "% of its calls failed, of the others' 0.0 %").await;

    peers[1].fail_each(0);
    load.until(sick, "ready").await;
    load.some(400).await;
    let rate = load.failed as f64 / load.calls as f64;
    assert!(
        rate < 0.005,
        "{} of {} calls failed; left after {until_left}",
        load.failed,
        load.calls
    );
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_connected_is_left_and_dialled_before_a_call_tries_it() {
    let well = Backend::echo().await;
    let mut gone = Backend::echo().await;
    let address = gone.address();
    let config = "[defaults.eject]\nbase = \"300ms\"\nmax = \"300ms\"";
    let endpoints = [well.as_endpoint("echo"), gone.as_endpoint("echo")];
    let pillion = Pillion::start(config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    gone.kill().await;
    load.until(address, "ejected").await;
    assert_eq!(load.failed, 0, "failures to connect are tried elsewhere");
    logs(&pillion, "it still cannot be connected").await;
    let failed = |metrics: &crate::metrics::Metrics| {
        metrics.sum("attempts_total", &[("outcome", "connect_failed")])
    };
    let before = failed(&pillion.metrics().await);
    until("and again", async || ejections(&pillion, "consecutive_local").await >= 4.0).await;
    load.some(40).await;
    assert_eq!(failed(&pillion.metrics().await), before, "no call is needed to find out");
}

#[tokio::test]
async fn an_ejected_endpoint_that_is_up_again_takes_the_calls_that_can_connect_no_other() {
    let mut all = [Backend::echo().await, Backend::echo().await, Backend::echo().await];
    let config = format!("{POOLED}[defaults.eject]\nbase = \"5m\"\nmax = \"5m\"");
    let endpoints = all.each_ref().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start(&config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    let first = all[0].address();
    all[0].kill().await;
    load.until(first, "ejected").await;

    let _back = all[0].restarted().await;
    all[1].kill().await;
    all[2].kill().await;
    until("a call is answered", async || load.clients[0].call("echo").await.is_ok()).await;
    for _ in 0..20 {
        assert!(load.clients[1].call("echo").await.is_ok());
    }
    assert_eq!(states(&pillion).await[&first], "ejected");
}

#[tokio::test]
async fn an_endpoint_that_answers_for_another_service_is_left() {
    let (first, second, other) =
        (TonicServer::start().await, TonicServer::start().await, TonicServer::other().await);
    let servers = [&first, &second, &other].map(|server| endpoint("echo", server.address(), ""));
    let pillion = Pillion::start(POOLED, servers).await;
    let mut load = Load::new(&pillion).await;
    load.until(other.address(), "ejected").await;
    assert_eq!(ejections(&pillion, "wrong_service").await, 1.0);
    assert!(load.failed <= 40, "{}", load.failed);
    logs(&pillion, "its address may have gone to another service").await;
    let failed = load.failed;
    load.some(200).await;
    assert_eq!(load.failed, failed);
}

#[tokio::test]
async fn an_endpoint_that_is_ten_times_as_slow_is_left_by_peak_ewma_and_taken_back_when_well() {
    let peers = Peer::several(3).await;
    peers.iter().for_each(|peer| peer.take(20));
    let config = format!("{POOLED}balance = \"peak_ewma\"\npeak_ewma_decay = \"2s\"");
    let pillion = Pillion::start(&config, peers.iter().map(Peer::as_endpoint)).await;
    let mut load = Load::new(&pillion).await;
    load.some(100).await;

    peers[0].take(200);
    // By calls in flight alone it would go on to get one of eight.
    until("hardly a call goes there", async || {
        let before = peers[0].calls();
        load.some(100).await;
        peers[0].calls() - before < 5
    })
    .await;

    peers[0].take(20);
    until("it has its share", async || {
        let before = peers[0].calls();
        load.some(100).await;
        peers[0].calls() - before > 20
    })
    .await;
    assert_eq!(load.failed, 0);
}

#[tokio::test]
async fn a_method_that_no_endpoint_knows_ejects_nobody() {
    let servers = [TonicServer::other().await, TonicServer::other().await];
    let endpoints = servers.iter().map(|server| endpoint("echo", server.address(), ""));
    let pillion = Pillion::start(POOLED, endpoints).await;
    let mut load = Load::new(&pillion).await;
    load.some(100).await;
    assert_eq!(load.failed, 100);
    assert!(states(&pillion).await.values().all(|state| state == "ready"));
}

#[tokio::test]
async fn a_subset_that_is_sick_falls_back_to_the_next_selector_and_returns_when_well() {
    let peers = Peer::several(4).await;
    let version = |at: usize| if at < 2 { "version = \"v2\"" } else { "version = \"v1\"" };
    let endpoints =
        (0..4).map(|at| endpoint("echo", peers[at].address(), version(at))).collect::<Vec<_>>();
    let config = format!(
        "{POOLED}filter = \"version=v2;version=v1\"\n[defaults.eject]\nbase = \"300ms\"\nmax = \"300ms\""
    );
    let pillion = Pillion::start(&config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    load.some(100).await;
    let calls = |of: std::ops::Range<usize>| peers[of].iter().map(Peer::calls).sum::<usize>();
    assert_eq!((calls(0..2), calls(2..4)), (100, 0));

    peers[..2].iter().for_each(|peer| peer.fail_each(1));
    load.until(peers[0].address(), "ejected").await;
    load.until(peers[1].address(), "ejected").await;
    let (before, failed) = (calls(0..2), load.failed);
    load.some(100).await;
    assert_eq!(load.failed - failed, calls(0..2) - before, "but for the calls that try it");
    assert!(calls(0..2) - before < 20 && calls(2..4) > 80);

    peers[..2].iter().for_each(|peer| peer.fail_each(0));
    load.until(peers[0].address(), "ready").await;
    load.until(peers[1].address(), "ready").await;
    let before = calls(2..4);
    load.some(100).await;
    assert_eq!(calls(2..4), before);
}

#[tokio::test]
async fn ejection_never_empties_a_service_and_rules_are_changed_while_running() {
    let peers = Peer::several(2).await;
    peers.iter().for_each(|peer| peer.fail_each(1));
    let config = format!("{POOLED}[defaults.eject]\nmax_share = 1.0");
    let endpoints = peers.iter().map(Peer::as_endpoint);
    let pillion = Pillion::start(&config, endpoints).await;
    let mut load = Load::new(&pillion).await;
    load.some(100).await;
    assert_eq!(load.failed, 100, "each is answered by an endpoint");
    let ejected = async || states(&pillion).await.values().filter(|s| *s == "ejected").count();
    until("one is ejected", async || ejected().await == 1).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc("echo"), &message(b"hello")).await.unwrap();
    assert_eq!((answer.grpc_status(), answer.header("pillion-error")), (Some(14), None));

    pillion.set_config(&format!("{POOLED}[defaults.eject]\nmax_share = 0.0"));
    until("it is back", async || ejected().await == 0).await;
    load.some(100).await;
    assert_eq!(ejected().await, 0);
}

#[tokio::test]
async fn callers_in_a_hurry_eject_nobody() {
    let slow = Backend::start(Incoming::never).await;
    let other = Backend::start(Incoming::never).await;
    let endpoints = [slow.as_endpoint("echo"), other.as_endpoint("echo")];
    let pillion = Pillion::start(POOLED, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let hurried = || async {
        let head = crate::client::grpc_with("echo", &[("grpc-timeout", "5m")]);
        client.send(head, &message(b"hello")).await.unwrap().grpc_status()
    };
    let ended: Vec<_> =
        stream::iter(0..200).map(|_| hurried()).buffer_unordered(20).collect().await;
    assert!(ended.into_iter().all(|status| status == Some(4)));
    assert!(states(&pillion).await.values().all(|state| state == "ready"));
}
