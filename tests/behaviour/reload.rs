//! Changes of the configuration while the program runs.

use rustix::process::Signal;

use crate::backend::Backend;
use crate::client::{Client, grpc_with};
use crate::metrics::Metrics;
use crate::program::Pillion;

fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("config_reloads_total", &[("result", result)])
}

async fn until_reloaded(pillion: &Pillion, result: &str, count: f64) {
    pillion.until_metrics("the file is read", |metrics| reloads(metrics, result) == count).await;
}

#[tokio::test]
async fn a_changed_file_acts_on_the_next_call() {
    let (v1, v2) = (Backend::echo().await, Backend::echo().await);
    let endpoints = [
        v1.as_endpoint_with("echo", "version = \"v1\""),
        v2.as_endpoint_with("echo", "version = \"v2\""),
    ];
    let config = |version: &str| {
        format!(
            "[node]\nservice = \"caller-{version}\"\n[defaults]\nfilter = \"version={version}\""
        )
    };
    let pillion = Pillion::start(&config("v1"), endpoints).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("echo").await.from(), v1.address());
    pillion.set_config(&config("v2"));
    until_reloaded(&pillion, "ok", 1.0).await;
    assert_eq!(client.call("echo").await.from(), v2.address());
    assert_eq!(v2.last_head().headers["pillion-caller"], "caller-v2");
    assert_eq!(pillion.get("/config").await.json()["defaults"]["filter"], "version=v2");
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let pillion = Pillion::start("", []).await;
    for count in [1.0, 2.0] {
        pillion.signal(Signal::HUP);
        until_reloaded(&pillion, "ok", count).await;
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_with_its_position() {
    let backend = Backend::echo().await;
    let good = "[node]\nservice = \"shop\"\n";
    let pillion = Pillion::start(good, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    pillion.set_config("[node]\nservice = \"mall\"\n[defaults]\nbalanse = \"p2c\"\n");
    until_reloaded(&pillion, "error", 1.0).await;
    assert!(client.call("echo").await.is_ok());
    assert_eq!(backend.last_head().headers["pillion-caller"], "shop");
    pillion.until_logged("pillion.toml:4:1").await;
    let log = pillion.log();
    assert!(log.contains("balance"), "{log}");
    pillion.set_config(&good.replace("shop", "mall"));
    until_reloaded(&pillion, "ok", 1.0).await;
    assert!(client.call("echo").await.is_ok());
    assert_eq!(backend.last_head().headers["pillion-caller"], "mall");
}

#[tokio::test]
async fn files_that_become_empty_are_not_taken_at_their_word() {
    let backend = Backend::echo().await;
    let config = "[node]\nservice = \"shop\"\n";
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    pillion.empty_files();
    until_reloaded(&pillion, "error", 1.0).await;
    let down = |metrics: &Metrics| metrics.sum("source_up", &[]) == 0.0;
    pillion.until_metrics("the source has been read", down).await;
    assert!(client.call("echo").await.is_ok());
    assert_eq!(backend.last_head().headers["pillion-caller"], "shop");
    for file in ["pillion.toml", "services.toml"] {
        pillion.until_logged(&format!("{file}: has become empty")).await;
    }
    // What says that there is to be nothing is believed.
    pillion.set_config("# nothing");
    until_reloaded(&pillion, "ok", 1.0).await;
    pillion.set_endpoints([]).await;
    assert_eq!(client.call("echo").await.header("pillion-error"), Some("no_endpoints"));
}

#[tokio::test]
async fn flags_win_over_a_file_that_is_read_again_as_well() {
    let pillion = Pillion::start("drain_timeout = \"1s\"", []).await;
    // The tests say --workers 2.
    pillion.set_config("drain_timeout = \"2s\"\nworkers = 7");
    until_reloaded(&pillion, "ok", 1.0).await;
    let config = pillion.get("/config").await.json();
    assert_eq!((&config["drain_timeout"], &config["workers"]), (&"2s".into(), &2.into()));
}

#[tokio::test]
async fn endpoints_that_come_and_go_act_on_the_next_call() {
    let (one, two) = (Backend::echo().await, Backend::echo().await);
    let pillion = Pillion::start("", [one.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("echo").await.from(), one.address());
    pillion.set_endpoints([two.as_endpoint("echo")]).await;
    assert_eq!(client.call("echo").await.from(), two.address());
    pillion.set_endpoints([]).await;
    assert_eq!(client.call("echo").await.header("pillion-error"), Some("no_endpoints"));
    pillion.set_endpoints([one.as_endpoint("echo")]).await;
    assert_eq!(client.call("echo").await.from(), one.address());
}

#[tokio::test]
async fn limits_of_a_listener_are_those_of_the_connections_that_come_after_a_reload() {
    let backend = Backend::echo().await;
    let config = |limits: &str| {
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.limits]\n{limits}")
    };
    let one = config("max_connections = 1");
    let pillion = Pillion::start(&one, [backend.as_endpoint("echo")]).await;
    let before = Client::connect(pillion.address()).await;
    assert!(before.call("echo").await.is_ok());
    let mut too_many = Client::connect(pillion.address()).await;
    assert!(too_many.ended().await.is_err());

    pillion.set_config(&config("max_connections = 2\nmax_header_size = \"1KiB\""));
    until_reloaded(&pillion, "ok", 1.0).await;
    let after = Client::connect(pillion.address()).await;
    assert!(after.call("echo").await.is_ok());
    let long = "x".repeat(2000);
    let headers = [("x-long", &*long)];
    let refused = after.send(grpc_with("echo", &headers), b"").await.unwrap();
    assert_eq!(refused.header("pillion-error"), Some("overloaded"), "{refused:?}");
    let taken = before.send(grpc_with("echo", &headers), b"").await.unwrap();
    assert_eq!(taken.header("pillion-error"), None, "{taken:?}");
    assert!(!pillion.log().contains("takes effect at the next start"), "{}", pillion.log());
}
