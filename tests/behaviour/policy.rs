//! Which endpoints are in play, and balancing by latency and by key.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::backend::{Backend, trailers};
use crate::client::{Client, grpc_with, message};
use crate::metrics::Metrics;
use crate::program::Pillion;
use crate::wait::{soon, until};

async fn backends<const N: usize>() -> [Backend; N] {
    let mut backends = Vec::new();
    for _ in 0..N {
        backends.push(Backend::echo().await);
    }
    backends.try_into().unwrap()
}

/// How many of `calls` calls each endpoint answered, `concurrent` of them at once.
async fn shares(client: &Client, calls: usize, concurrent: usize) -> HashMap<SocketAddr, usize> {
    let mut shares = HashMap::new();
    let mut answers = stream::iter(0..calls)
        .map(|_| async { client.call("echo").await.from() })
        .buffer_unordered(concurrent);
    while let Some(from) = answers.next().await {
        *shares.entry(from).or_default() += 1;
    }
    shares
}

/// Who answers a call with this header.
async fn answered_by(client: &Client, name: &str, value: &str) -> SocketAddr {
    let head = grpc_with("echo", &[(name, value)]);
    client.send(head, &message(b"hello")).await.unwrap().from()
}

/// Who answers each of sixty users.
async fn homes(client: &Client, header: &str) -> Vec<SocketAddr> {
    let mut homes = Vec::new();
    for user in 0..60 {
        homes.push(answered_by(client, header, &format!("user-{user}")).await);
    }
    homes
}

/// Endpoints that answer at once, but for the first while it is slow. Slow is told in calls, not in
/// time, so that a busy machine does not matter: it answers when 200 others have been answered.
struct Race {
    backends: Vec<Backend>,
    answered: watch::Sender<usize>,
    slow: watch::Sender<bool>,
}

impl Race {
    async fn start(size: usize) -> Self {
        let (answered, slow) = (watch::Sender::new(0), watch::Sender::new(false));
        let mut backends = Vec::new();
        for at in 0..size {
            let (answered, slow) = (answered.clone(), slow.clone());
            let answer = move |call: crate::backend::Incoming| {
                let (answered, slow) = (answered.clone(), slow.clone());
                async move {
                    let until = *answered.borrow() + 200;
                    let (mut others, mut fast) = (answered.subscribe(), slow.subscribe());
                    let now = tokio::select! {
                        biased;
                        _ = fast.wait_for(|slow| at > 0 || !slow) => 1,
                        _ = others.wait_for(|answered| *answered >= until) => 0,
                    };
                    call.echo().await;
                    answered.send_modify(|calls| *calls += now);
                }
            };
            backends.push(Backend::start(answer).await);
        }
        Self { backends, answered, slow }
    }

    /// How many calls the first one gets while the others answer 200.
    async fn window(&self) -> usize {
        let before = self.backends[0].counts().calls;
        let until = *self.answered.borrow() + 200;
        let mut answered = self.answered.subscribe();
        soon("200 answers", answered.wait_for(|calls| *calls >= until)).await.unwrap();
        self.backends[0].counts().calls - before
    }

    /// Waits for such a window.
    async fn until(&self, what: &str, so: impl Fn(usize) -> bool) {
        let mut seen = Vec::new();
        while seen.len() < 1_000 {
            seen.push(self.window().await);
            if so(seen[seen.len() - 1]) {
                return;
            }
        }
        panic!("never {what}: {seen:?}");
    }
}

#[tokio::test]
async fn peak_ewma_leaves_an_endpoint_that_has_become_slow_and_comes_back() {
    let race = Race::start(3).await;
    let config = |decay: &str| {
        format!(
            "[defaults]\nbalance = \"peak_ewma\"\nconnection = \"pooled\"\n\
             peak_ewma_decay = \"{decay}\""
        )
    };
    let endpoints = race.backends.iter().map(|backend| backend.as_endpoint("echo"));
    let pillion = Pillion::start(&config("1s"), endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let calls = async { drop(shares(&client, usize::MAX, 6).await) };
    let test = async {
        race.until("a fair share", |calls| calls > 50).await;
        // Nothing is forgotten now, however long this takes on a busy machine.
        pillion.set_config(&config("1day"));
        let reloaded = |metrics: &Metrics| metrics.sum("config_reloads_total", &[]) > 0.0;
        pillion.until_metrics("the configuration is reloaded", reloaded).await;
        race.slow.send_replace(true);
        race.until("left", |calls| calls == 0).await;
        let mut calls = 0;
        for _ in 0..5 {
            calls += race.window().await;
        }
        // By calls in flight alone it would always hold one, so get at least five.
        assert!(calls <= 3, "{calls} for 1000 of the others");
        race.slow.send_replace(false);
        pillion.set_config(&config("100ms"));
        race.until("a fair share again", |calls| calls > 50).await;
    };
    tokio::select! {
        () = calls => {}
        () = test => {}
    }
}

#[tokio::test]
async fn peak_ewma_is_not_drawn_to_an_endpoint_that_fails_at_once() {
    let failing = Backend::start(|mut call| async move {
        let mut head = http::Response::new(());
        *head.headers_mut() = trailers(14);
        head.headers_mut().insert("backend", "127.0.0.1:1".parse().unwrap());
        call.begin_with(head, true);
    })
    .await;
    let working = backends::<2>().await;
    let endpoints = working.iter().chain([&failing]).map(|backend| backend.as_endpoint("echo"));
    let config = "[defaults]\nbalance = \"peak_ewma\"\nconnection = \"pooled\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    shares(&client, 600, 4).await;
    let calls = failing.counts().calls;
    assert!((1..60).contains(&calls), "{calls} of 600");
}

#[tokio::test]
async fn a_user_stays_on_an_endpoint_whichever_worker_or_proxy_takes_the_call() {
    let backends = backends::<4>().await;
    let endpoints = || backends.iter().map(|backend| backend.as_endpoint("echo"));
    for balance in ["ring_hash", "maglev"] {
        let config = format!("[defaults]\nbalance = \"{balance}\"\nconnection = \"pooled\"");
        let (one, two) = (
            Pillion::start(&config, endpoints()).await,
            Pillion::start(&config, endpoints()).await,
        );
        // A connection is one worker's, and the next one the other's.
        let (first, second) =
            (Client::connect(one.address()).await, Client::connect(one.address()).await);
        let other_proxy = Client::connect(two.address()).await;
        let header = "pillion-hash-key";
        let before = homes(&first, header).await;
        assert_eq!(before, homes(&second, header).await);
        assert_eq!(before, homes(&other_proxy, header).await);
        assert_eq!(before.iter().collect::<HashSet<_>>().len(), 4, "{before:?}");
        assert!(backends[0].last_head().headers.get(header).is_none(), "ends at the proxy");

        let without = backends.iter().skip(1).map(|backend| backend.as_endpoint("echo"));
        one.set_endpoints(without).await;
        let after = homes(&first, header).await;
        let stay =
            before.iter().zip(&after).filter(|(before, _)| **before != backends[0].address());
        let moved = stay.filter(|(before, after)| before != after).count();
        assert!(moved <= if balance == "ring_hash" { 0 } else { 6 }, "{moved} moved of 60");
        assert!(!after.contains(&backends[0].address()));
        one.set_endpoints(endpoints()).await;
        assert_eq!(homes(&first, header).await, before);
    }
}

#[tokio::test]
async fn why_names_the_endpoint_that_a_key_comes_to() {
    let backends = backends::<4>().await;
    let endpoints = backends.iter().map(|backend| backend.as_endpoint("echo"));
    let config = "[defaults]\nbalance = \"ring_hash\"\nhash_on = \"header:x-user\"";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for user in ["a", "b", "c", "d", "e"] {
        let home = answered_by(&client, "x-user", user).await.to_string();
        let why = pillion.get(&format!("/why?authority=echo&header=x-user:{user}")).await.json();
        assert_eq!(why["candidates"][0]["address"], home, "{why}");
        assert_eq!(why["candidates"][0]["share"], 1.0);
    }
    let why = pillion.get("/why?authority=echo&hash_key=a").await.json();
    assert_eq!(why["candidates"].as_array().unwrap().len(), 4, "not the header that counts: {why}");
}

#[tokio::test]
async fn a_key_can_be_a_cookie_the_path_or_the_address_of_the_application() {
    let backends = backends::<4>().await;
    let mut config = String::new();
    let mut endpoints = Vec::new();
    for (service, on) in [("cookie", "cookie:session"), ("path", "path"), ("source", "source")] {
        config += &format!("[service.{service}]\nbalance = \"maglev\"\nhash_on = \"{on}\"\n");
        endpoints.extend(backends.iter().map(|backend| backend.as_endpoint(service)));
    }
    let pillion = Pillion::start(&config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let ask = async |service: &str, path: &str, cookie: &str| {
        let mut head = grpc_with(service, &[("cookie", cookie)]);
        *head.uri_mut() = format!("http://{service}{path}").parse().unwrap();
        client.send(head, b"").await.unwrap().from()
    };
    let mut seen = [HashSet::new(), HashSet::new(), HashSet::new()];
    for at in 0..24 {
        let (path, cookie) = (format!("/a/{at}"), format!("other=1; session=s{at}"));
        let of_cookie = ask("cookie", "/", &cookie).await;
        assert_eq!(of_cookie, ask("cookie", &path, &cookie).await);
        let of_path = ask("path", &path, "").await;
        assert_eq!(of_path, ask("path", &path, &cookie).await);
        let of_source = ask("source", &path, &cookie).await;
        for (seen, home) in seen.iter_mut().zip([of_cookie, of_path, of_source]) {
            seen.insert(home);
        }
    }
    assert_eq!(seen.map(|homes| homes.len()), [4, 4, 1]);
}

#[tokio::test]
async fn calls_stay_in_the_zone_while_it_can_carry_them_and_spill_over_when_it_cannot() {
    let backends = backends::<5>().await;
    let endpoints = |zones: [&'static str; 5]| {
        let zoned = backends.iter().zip(zones);
        zoned
            .map(|(b, zone)| b.as_endpoint_with("echo", &format!("zone = \"{zone}\"")))
            .collect::<Vec<_>>()
    };
    let config = "[node]\nzone = \"a\"\n[defaults]\nzone_preference = \"prefer\"\n\
                  connection = \"pooled\"";
    let pillion = Pillion::start(config, endpoints(["a", "a", "b", "b", "c"])).await;
    let client = Client::connect(pillion.address()).await;
    let in_zone = async |count: usize| {
        let shares = shares(&client, 500, 1).await;
        backends[..count].iter().filter_map(|b| shares.get(&b.address())).sum::<usize>()
    };
    assert_eq!(in_zone(2).await, 500, "two of five, where a third would do");
    // One of five: 20 % of the weight, with a tolerance of 1.4 is 84 % of a third.
    pillion.set_endpoints(endpoints(["a", "b", "b", "c", "c"])).await;
    let kept = in_zone(1).await;
    assert!((410..=430).contains(&kept), "{kept} of 500");
    pillion.set_endpoints(endpoints(["d", "b", "b", "c", "c"])).await;
    let elsewhere = in_zone(1).await;
    assert!((95..=105).contains(&elsewhere), "no zone a: by weight, {elsewhere} of 500");
}

#[tokio::test]
async fn a_standby_gets_nothing_until_the_others_cannot_be_reached() {
    let [mut first, standby] = backends().await;
    let endpoints = [
        first.as_endpoint("echo"),
        standby.as_endpoint_with("echo", "metadata = { priority = 1 }"),
    ];
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let all_of = |backend: &Backend| HashMap::from([(backend.address(), 50)]);
    assert_eq!(shares(&client, 50, 4).await, all_of(&first));
    first.kill().await;
    assert_eq!(shares(&client, 50, 4).await, all_of(&standby));
}

#[tokio::test]
async fn each_proxy_uses_a_subset_of_its_own() {
    let backends = backends::<12>().await;
    let mut used = HashSet::new();
    for id in ["one", "two", "three"] {
        let config = format!("[node]\nid = \"{id}\"\n[defaults]\nsubset = 4");
        let endpoints = backends.iter().map(|backend| backend.as_endpoint("echo"));
        let pillion = Pillion::start(&config, endpoints.clone()).await;
        let client = Client::connect(pillion.address()).await;
        let mine: Vec<_> = shares(&client, 80, 4).await.into_keys().collect();
        assert_eq!(mine.len(), 4);
        // One that this proxy does not use leaves: nothing changes.
        let other = backends.iter().position(|b| !mine.contains(&b.address())).unwrap();
        let left = endpoints.enumerate().filter(|(at, _)| *at != other);
        pillion.set_endpoints(left.map(|(_, endpoint)| endpoint)).await;
        let after = shares(&client, 80, 4).await;
        assert!(after.keys().all(|address| mine.contains(address)), "{mine:?}, {after:?}");
        used.extend(mine);
    }
    assert!(used.len() > 4, "not the same ones for all: {used:?}");
}

#[tokio::test]
async fn an_endpoint_that_joins_begins_with_a_tenth_of_its_weight_and_grows() {
    let backends = backends::<3>().await;
    let policy = |slow_start: &str| {
        format!("[defaults]\nslow_start = \"{slow_start}\"\nconnection = \"pooled\"")
    };
    let endpoints = |count: usize| backends[..count].iter().map(|b| b.as_endpoint("echo"));
    // So slow that it does not grow while this test runs.
    let pillion = Pillion::start(&policy("100days"), endpoints(2)).await;
    let client = Client::connect(pillion.address()).await;
    let new = async || shares(&client, 420, 1).await.remove(&backends[2].address()).unwrap_or(0);
    let both = shares(&client, 100, 1).await;
    assert!(both.values().all(|calls| (48..=52).contains(calls)), "not new: {both:?}");
    pillion.set_endpoints(endpoints(3)).await;
    let calls = new().await;
    assert!((18..=22).contains(&calls), "0.1 of 2.1 weights is 20 of 420: {calls}");
    let why = pillion.get("/why?authority=echo").await.text;
    assert!(why.contains("has 10% of its weight"), "{why}");
    // Fast enough to be seen to grow up.
    pillion.set_config(&policy("1s"));
    until("it has its whole weight", async || new().await >= 138).await;
}

#[tokio::test]
async fn without_the_zone_of_the_proxy_none_can_be_preferred() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pillion.toml");
    std::fs::write(&path, "[service.orders]\nzone_preference = \"prefer\"\n").unwrap();
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(["check", "-c"])
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2));
    assert!(text.contains(":2:19: zone_preference: needs the zone of this proxy"), "{text}");
}
