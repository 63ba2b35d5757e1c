//! Live policy: what is written into a real etcd acts on calls, or is refused and told.

use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use futures_util::future::join_all;

use crate::backend::Backend;
use crate::client::{Answer, Client};
use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::wait::{delay, until};

/// A proxy whose endpoints are in a file, and whose policy is in `etcd`.
async fn proxy_of(etcd: &Etcd, config: &str, endpoints: Vec<String>) -> Pillion {
    program_of(etcd, config).endpoints(endpoints).start().await
}

fn program_of(etcd: &Etcd, config: &str) -> Program {
    let url = etcd.url();
    let policy = format!("[policy]\n[[source]]\nname = \"main\"\nendpoints = [{url:?}]");
    Program::new(&format!("{config}\n{policy}"))
}

fn key(name: &str) -> String {
    format!("/pillion/policy/{name}")
}

/// A route that answers every call to `authority` with `message`.
fn answering(authority: &str, message: &str) -> String {
    format!("authority = {authority:?}\nrespond = {{ http_status = 503, message = {message:?} }}")
}

fn told(answer: &Answer) -> Option<&str> {
    answer.header("grpc-message")
}

/// The document `name` in `GET /config`.
async fn document(pillion: &Pillion, name: &str) -> serde_json::Value {
    let config = pillion.get("/config").await.json();
    let documents = config["live_policy"]["documents"].as_array().unwrap();
    documents.iter().find(|document| document["key"] == name).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_change_acts_on_calls_of_every_proxy_within_100_milliseconds() {
    let etcd = Etcd::start().await;
    let backend = Backend::echo().await;
    let endpoints = vec![backend.as_endpoint("orders")];
    let proxies =
        [proxy_of(&etcd, "", endpoints.clone()).await, proxy_of(&etcd, "", endpoints).await];
    let clients =
        [Client::connect(proxies[0].address()).await, Client::connect(proxies[1].address()).await];
    // A busy machine may be late now and then; it is not late every time.
    let limit = Duration::from_millis(100);
    let (mut put_took, mut delete_took) = (Duration::MAX, Duration::MAX);
    for round in 0..30 {
        let message = format!("round {round}");
        let (key, route) = (key("route/closed"), answering("orders", &message));
        let calls = || join_all(clients.iter().map(|client| client.call("orders")));
        let closed = |answer: &Answer| told(answer) == Some(&message);
        let put = delay(etcd.put(&key, &route), async || calls().await.iter().all(closed)).await;
        let delete = delay(etcd.delete(&key), async || calls().await.iter().all(Answer::is_ok));
        (put_took, delete_took) = (put_took.min(put), delete_took.min(delete.await));
        if put_took < limit && delete_took < limit {
            return;
        }
    }
    panic!("a put took {put_took:?} and a delete {delete_took:?} at least");
}

#[tokio::test]
async fn a_bad_document_is_refused_and_told_and_the_last_good_one_stays() {
    let etcd = Etcd::start().await;
    etcd.put(&key("route/a"), &answering("orders", "good")).await;
    etcd.put(&key("service/a b"), "attempts = 1").await;
    let pillion = proxy_of(&etcd, "", vec![]).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(told(&client.call("orders").await), Some("good"));
    etcd.put(&key("route/a"), "authority = \"orders\"\nrespnd = {}").await;
    let refused = |metrics: &crate::metrics::Metrics| {
        metrics.sum("policy_documents", &[("state", "refused")])
    };
    pillion.until_metrics("it is refused", |metrics| refused(metrics) == 2.0).await;
    assert_eq!(told(&client.call("orders").await), Some("good"));
    let found = document(&pillion, "route/a").await;
    let reason = found["refused"]["reason"].as_str().unwrap();
    assert!(reason.contains("2:1: unknown key \"respnd\" in [[route]], did you mean"), "{reason}");
    assert!(found["refused"]["revision"].as_i64() > found["in_force"].as_i64(), "{found}");
    assert!(found["refused"]["since"].as_str().unwrap().starts_with("20"), "{found}");
    let found = document(&pillion, "service/a b").await;
    assert!(found["in_force"].is_null(), "{found}");
    let since = pillion.metrics().await.sum("policy_refused_since_seconds", &[("key", "route/a")]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - since).abs() < 60.0, "{since}");
    pillion.until_logged("key=route/a").await;
    assert!(pillion.log().contains("respnd"), "{}", pillion.log());
    etcd.put(&key("route/a"), &answering("orders", "better")).await;
    pillion.until_metrics("it is taken", |metrics| refused(metrics) == 1.0).await;
    assert_eq!(told(&client.call("orders").await), Some("better"));
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("policy_refused_since_seconds", &[("key", "route/a")]), 0.0);
    assert_eq!(metrics.sum("policy_documents", &[("state", "in_force")]), 1.0);
    assert_eq!(metrics.sum("policy_synced", &[]), 1.0);
}

#[tokio::test]
async fn documents_win_over_the_file_and_their_routes_go_first_by_id() {
    let etcd = Etcd::start().await;
    let (old, new) = (Backend::echo().await, Backend::echo().await);
    let endpoints = vec![
        old.as_endpoint_with("orders", "version = \"v1\""),
        new.as_endpoint_with("orders", "version = \"v2\""),
    ];
    let config = "[service.orders]\nfilter = \"version=v1\"\ntimeout = \"5s\"\n\
                  [[route]]\nauthority = \"closed\"\nrespond = { http_status = 503, message = \"file\" }";
    let pillion = proxy_of(&etcd, config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("orders").await.from(), old.address());
    assert_eq!(told(&client.call("closed").await), Some("file"));
    // JSON, as TOML below.
    etcd.put(&key("service/orders"), "{\"filter\": \"version=v2\"}").await;
    until("the filter acts", async || client.call("orders").await.from() == new.address()).await;
    let timeout = new.last_head().headers["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(!timeout.is_empty(), "what the document does not say is as in the file");
    for (id, message) in [("20", "second"), ("10", "first")] {
        etcd.put(&key(&format!("route/{id}")), &answering("closed", message)).await;
        until("the route acts", async || told(&client.call("closed").await) == Some(message)).await;
    }
    let why = pillion.get("/why?authority=closed").await.json();
    assert_eq!(why["route"]["name"], "route/10");
    let config = pillion.get("/config").await.json();
    assert_eq!(config["service"]["orders"]["filter"], "version=v2");
    assert_eq!(config["route"][2]["respond"]["message"], "file");
    for id in ["10", "20"] {
        etcd.delete(&key(&format!("route/{id}"))).await;
    }
    until("the file's is back", async || told(&client.call("closed").await) == Some("file")).await;
}

#[tokio::test]
async fn changes_of_one_transaction_act_together() {
    let etcd = Etcd::start().await;
    etcd.put(&key("route/a"), &answering("orders", "a")).await;
    let pillion = proxy_of(&etcd, "", vec![]).await;
    let client = Client::connect(pillion.address()).await;
    let mut writer = etcd.client().await;
    for _ in 0..20 {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let value = answering("orders", to);
            let swap = [
                TxnOp::delete(key(&format!("route/{from}")), None),
                TxnOp::put(key(&format!("route/{to}")), value, None),
            ];
            writer.txn(Txn::new().and_then(swap)).await.unwrap();
            loop {
                // Without either route, the service would have no endpoint.
                let answer = client.call("orders").await;
                assert_eq!(answer.header("pillion-error"), Some("direct_response"));
                if told(&answer) == Some(to) {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn policy_outlives_etcd_and_catches_up_when_it_is_back() {
    let mut etcd = Etcd::start().await;
    etcd.put(&key("route/a"), &answering("orders", "before")).await;
    etcd.put(&key("route/b"), &answering("pay", "gone soon")).await;
    let pillion = proxy_of(&etcd, "", vec![]).await;
    let client = Client::connect(pillion.address()).await;
    etcd.kill();
    let synced = |metrics: &crate::metrics::Metrics| metrics.sum("policy_synced", &[]);
    pillion.until_metrics("etcd is missed", |metrics| synced(metrics) == 0.0).await;
    assert_eq!(told(&client.call("orders").await), Some("before"));
    let config = pillion.get("/config").await.json();
    assert!(config["live_policy"]["problem"].as_str().unwrap().contains(&etcd.address()));
    assert_eq!(pillion.get("/ready").await.status, 200, "it goes on with what it has");
    etcd.restart().await;
    etcd.put(&key("route/a"), &answering("orders", "after")).await;
    etcd.delete(&key("route/b")).await;
    until("the change acts", async || told(&client.call("orders").await) == Some("after")).await;
    until("the deletion acts", async || told(&client.call("pay").await) != Some("gone soon")).await;
    pillion.until_metrics("etcd is back", |metrics| synced(metrics) == 1.0).await;
}

#[tokio::test]
async fn a_proxy_takes_no_calls_before_it_has_read_its_policy() {
    let mut etcd = Etcd::stopped();
    let pillion = program_of(&etcd, "").endpoints([]).start_unready().await;
    let reasons = async || pillion.get("/ready").await.text;
    until("it says why", async || {
        reasons().await.contains(&format!("policy: http://{}", etcd.address()))
    })
    .await;
    etcd.restart().await;
    until("it has been read", async || !reasons().await.contains("policy")).await;
}

#[tokio::test]
async fn a_reload_of_the_file_keeps_live_policy_and_may_end_it() {
    let etcd = Etcd::start().await;
    etcd.put(&key("route/a"), &answering("orders", "live")).await;
    etcd.put("/other/route/a", &answering("orders", "other")).await;
    let source = format!("[[source]]\nname = \"main\"\nendpoints = [\"{}\"]", etcd.url());
    let pillion = proxy_of(&etcd, "", vec![]).await;
    let client = Client::connect(pillion.address()).await;
    let answer = async || told(&client.call("orders").await).map(str::to_owned);
    assert_eq!(answer().await.as_deref(), Some("live"));
    pillion.set_config(&format!("drain_timeout = \"7s\"\n[policy]\n{source}"));
    until("the file is read", async || {
        pillion.get("/config").await.json()["drain_timeout"] == "7s"
    })
    .await;
    assert_eq!(answer().await.as_deref(), Some("live"));
    pillion.set_config(&format!("[policy]\nprefix = \"/other\"\n{source}"));
    until("the other one acts", async || {
        let answer = answer().await;
        assert_ne!(answer, None, "there is no gap between the two");
        answer.as_deref() == Some("other")
    })
    .await;
    pillion.set_config(&source);
    until("there is none", async || {
        client.call("orders").await.header("pillion-error") == Some("no_endpoints")
    })
    .await;
    assert!(pillion.get("/config").await.json()["live_policy"].is_null());
}

#[tokio::test]
async fn what_the_document_tells_to_type_does_what_it_says() {
    let etcd = Etcd::start().await;
    let text = include_str!("../../docs/routes.md").split("## Live policy").nth(1).unwrap();
    let code = |language| {
        text.split_once(&format!("```{language}\n")).unwrap().1.split_once("```").unwrap().0
    };
    let backend = Backend::echo().await;
    let endpoints =
        ["pay", "orders"].map(|service| backend.as_endpoint_with(service, "version = \"v1\""));
    let source = format!("[[source]]\nname = \"main\"\nendpoints = [\"{}\"]\n", etcd.url());
    let config = format!("{}{source}", code("toml"));
    let pillion = Program::new(&config).endpoints(endpoints).start().await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("pay").await.is_ok());
    let typed = std::process::Command::new("sh")
        .args(["-ec", code("sh")])
        .env("PATH", with_pillion())
        .env("PILLION_ETCD", etcd.url())
        .env("ETCDCTL_ENDPOINTS", etcd.url())
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    assert!(typed.status.success(), "{typed:?}");
    until("the service is closed", async || {
        told(&client.call("pay").await) == Some("back in five minutes")
    })
    .await;
    let ways = async || pillion.get("/why?authority=orders").await.json()["route"]["ways"].clone();
    until("the canary is there", async || ways().await[0]["share"] == 0.1).await;
}

/// The search path for programs, with the one under test in front.
fn with_pillion() -> std::ffi::OsString {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_pillion")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).unwrap()
}

#[tokio::test]
async fn a_start_without_etcd_has_the_policy_of_the_last_run() {
    let mut etcd = Etcd::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("state_dir = {:?}", folder.path().join("state"));
    etcd.put(&key("route/a"), &answering("orders", "good")).await;
    let first = proxy_of(&etcd, &config, vec![]).await;
    etcd.put(&key("route/b"), &answering("pay", "later")).await;
    let client = Client::connect(first.address()).await;
    until("the change acts", async || told(&client.call("pay").await) == Some("later")).await;
    let saved = folder.path().join("state/@policy.json");
    until("it is saved", async || {
        std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("later"))
    })
    .await;
    drop(first);
    etcd.kill();
    let second = program_of(&etcd, &config).endpoints([]).start_unready().await;
    let client = Client::connect(second.address()).await;
    until("policy is not what it waits for", async || {
        !second.get("/ready").await.text.contains("policy:")
    })
    .await;
    assert_eq!(told(&client.call("orders").await), Some("good"));
    assert_eq!(told(&client.call("pay").await), Some("later"));
    assert_eq!(second.metrics().await.sum("policy_synced", &[]), 0.0);
    etcd.restart().await;
    etcd.delete(&key("route/b")).await;
    until("the deletion acts", async || told(&client.call("pay").await) != Some("later")).await;
    assert_eq!(told(&client.call("orders").await), Some("good"));
}
