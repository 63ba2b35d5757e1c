//! Endpoints that say that they are not well are left out until they are.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

use crate::backend::{Backend, trailers};
use crate::client::Client;
use crate::program::Pillion;
use crate::wait::until;

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// A backend with the health service of gRPC, which says what the test wants.
struct Peer {
    backend: Backend,
    says: Arc<AtomicU8>,
    calls: Arc<AtomicUsize>,
}

impl Peer {
    async fn start() -> Self {
        let (says, calls) = (Arc::new(AtomicU8::new(SERVING)), Arc::<AtomicUsize>::default());
        let (status, count) = (Arc::clone(&says), Arc::clone(&calls));
        let backend = Backend::start(move |mut call| {
            let is_check = call.head.uri.path() == "/grpc.health.v1.Health/Check";
            if !is_check {
                count.fetch_add(1, Relaxed);
            }
            let status = status.load(Relaxed);
            async move {
                if !is_check {
                    return call.echo().await;
                }
                let mut answer = call.begin();
                let _ = answer.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false);
                let _ = answer.send_trailers(trailers(0));
            }
        });
        Self { backend: backend.await, says, calls }
    }

    async fn three() -> [Self; 3] {
        [Self::start().await, Self::start().await, Self::start().await]
    }

    fn say(&self, status: u8) {
        self.says.store(status, Relaxed);
    }

    fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

async fn start(keys: &str, peers: &[Peer]) -> Pillion {
    let config = format!(
        "[defaults]\nconnection = \"pooled\"\n{keys}\n[defaults.health]\nkind = \"grpc\"\ninterval = \
         \"50ms\"\ntimeout = \"5s\"\nunhealthy_after = 2"
    );
    Pillion::start(&config, peers.iter().map(|peer| peer.backend.as_endpoint("echo"))).await
}

/// Waits until so many endpoints are unhealthy, while the service is called.
async fn until_unhealthy(pillion: &Pillion, client: &Client, count: usize) {
    until("so many are unhealthy", async || {
        client.call("echo").await;
        let metrics = pillion.metrics().await;
        metrics.sum("endpoints", &[("state", "unhealthy")]) == count as f64
    })
    .await;
}

/// How many of sixty calls each gets. All must be answered.
async fn shares(client: &Client, peers: &[Peer]) -> Vec<usize> {
    let before: Vec<_> = peers.iter().map(Peer::calls).collect();
    for _ in 0..60 {
        assert!(client.call("echo").await.is_ok());
    }
    peers.iter().zip(before).map(|(peer, before)| peer.calls() - before).collect()
}

/// A call may begin before the proxy has counted that the one before is over.
fn assert_fair(shares: &[usize]) {
    assert!(shares.iter().all(|calls| (14..=26).contains(calls)), "{shares:?}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_serve_is_left_out_until_it_does() {
    let peers = Peer::three().await;
    let pillion = start("", &peers).await;
    let client = Client::connect(pillion.address()).await;
    assert!(pillion.metrics().await.sum("health_checks_total", &[]) == 0.0, "nobody calls it yet");
    assert_fair(&shares(&client, &peers).await);

    peers[0].say(NOT_SERVING);
    until_unhealthy(&pillion, &client, 1).await;
    let shares_now = shares(&client, &peers).await;
    assert_eq!(shares_now[0], 0, "{shares_now:?}");
    let address = peers[0].backend.address().to_string();
    let reason = format!("unhealthy: {address}: NOT_SERVING");
    let service = pillion.get("/services/echo").await.json();
    let shown = service["endpoints"].as_array().unwrap().iter();
    let sick = shown.clone().find(|shown| shown["address"] == *address).unwrap();
    assert_eq!(
        (sick["state"].as_str(), sick["reason"].as_str()),
        (Some("unhealthy"), Some(&*reason))
    );
    let why = pillion.get("/why?authority=echo").await.json();
    let usable = why["steps"].as_array().unwrap().iter().find(|step| step["stage"] == "usable");
    assert_eq!(usable.unwrap()["dropped"][0]["reason"], *reason);

    peers[0].say(SERVING);
    until_unhealthy(&pillion, &client, 0).await;
    assert_fair(&shares(&client, &peers).await);
    until("the log tells", async || pillion.log().contains("healthy again")).await;
}

#[tokio::test]
async fn where_too_few_are_well_all_are_used_and_the_threshold_is_configured() {
    let peers = Peer::three().await;
    peers[..2].iter().for_each(|peer| peer.say(NOT_SERVING));
    let pillion = start("", &peers).await;
    let client = Client::connect(pillion.address()).await;
    until_unhealthy(&pillion, &client, 2).await;
    assert_fair(&shares(&client, &peers).await);
    let why = pillion.get("/why?authority=echo").await.text;
    assert!(why.contains("fewer than 50% are well, so all are used"), "{why}");

    let pillion = start("panic_threshold = 0.3", &peers).await;
    let client = Client::connect(pillion.address()).await;
    until_unhealthy(&pillion, &client, 2).await;
    assert_eq!(shares(&client, &peers).await, [0, 0, 60]);
    peers[2].say(NOT_SERVING);
    until_unhealthy(&pillion, &client, 3).await;
    assert_fair(&shares(&client, &peers).await);
}

#[tokio::test]
async fn checks_that_are_turned_off_leave_nobody_out() {
    let peers = Peer::three().await;
    peers[0].say(NOT_SERVING);
    let pillion = start("", &peers).await;
    let client = Client::connect(pillion.address()).await;
    until_unhealthy(&pillion, &client, 1).await;
    pillion.set_config("[defaults]\nconnection = \"pooled\"");
    until_unhealthy(&pillion, &client, 0).await;
    assert_fair(&shares(&client, &peers).await);
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_found_out_without_a_call() {
    let well = Backend::echo().await;
    let mut gone = Backend::echo().await;
    gone.kill().await;
    let config = "[defaults.eject]\nmax_share = 0.0\n[defaults.health]\nkind = \"tcp\"\ninterval = \
                  \"50ms\"\nunhealthy_after = 1";
    let endpoints = [well.as_endpoint("echo"), gone.as_endpoint("echo")];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    until_unhealthy(&pillion, &client, 1).await;
    let failed = async || {
        let outcome = [("outcome", "connect_failed")];
        pillion.metrics().await.sum("attempts_total", &outcome)
    };
    let before = failed().await;
    for _ in 0..60 {
        assert!(client.call("echo").await.is_ok());
    }
    assert_eq!(failed().await, before);
}
