//! What Prometheus scrapes.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::backend::Backend;
use crate::client::{Client, get, grpc_with};
use crate::program::{Pillion, endpoint};
use crate::python::find_program;

/// A proxy that has counted something in every family that it can.
async fn busy() -> (Backend, Pillion) {
    let backend = Backend::echo().await;
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = "[defaults]\nfilter = \"version=dead;\"";
    let endpoints = [
        endpoint("echo", dead, "version = \"dead\""),
        backend.as_endpoint("echo"),
        "[[endpoint]]\nservice = \"echo\"\naddress = \"wrong\"\n".to_owned(),
    ];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    client.send(get("echo"), b"").await.unwrap();
    client.call("nowhere").await;
    client.send(grpc_with("echo", &[("pillion-filter", "version=v9")]), b"").await.unwrap();
    (backend, pillion)
}

#[tokio::test]
async fn every_promised_family_is_there() {
    let (_backend, pillion) = busy().await;
    let metrics = pillion.metrics().await;
    let names = metrics.names();
    for name in [
        "pillion_build_info",
        "pillion_requests_total",
        "pillion_request_duration_seconds_bucket",
        "pillion_requests_in_flight",
        "pillion_attempts_total",
        "pillion_retries_total",
        "pillion_picks_total",
        "pillion_connect_duration_seconds_count",
        "pillion_upstream_connections_opened_total",
        "pillion_upstream_connections",
        "pillion_downstream_connections",
        "pillion_endpoints",
        "pillion_source_synced",
        "pillion_source_revision",
        "pillion_source_age_seconds",
        "pillion_source_events_total",
        "pillion_source_resyncs_total",
        "pillion_source_rejected_records",
        "pillion_config_reloads_total",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let page = pillion.get("/metrics").await;
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
}

#[tokio::test]
async fn promtool_finds_nothing() {
    let Some(promtool) = find_program("promtool") else {
        return eprintln!("skipped: promtool is not installed (tools/setup installs it)");
    };
    let (_backend, pillion) = busy().await;
    let page = pillion.get("/metrics").await;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn calls_attempts_and_retries_are_counted_by_how_they_ended() {
    let (_backend, pillion) = busy().await;
    let metrics = pillion.metrics().await;
    let requests = |service, status, error| {
        let labels = [("service", service), ("grpc_status", status), ("error", error)];
        metrics.sum("requests_total", &labels)
    };
    assert_eq!(requests("echo", "OK", ""), 1.0);
    assert_eq!(requests("echo", "200", ""), 1.0);
    assert_eq!(requests("echo", "UNAVAILABLE", "no_match"), 1.0);
    assert_eq!(requests("unknown", "UNAVAILABLE", "no_endpoints"), 1.0);
    assert_eq!(metrics.sum("requests_total", &[]), 4.0);
    assert_eq!(metrics.sum("request_duration_seconds_count", &[("service", "echo")]), 3.0);
    assert_eq!(metrics.sum("requests_in_flight", &[]), 0.0);
    let attempts =
        |outcome| metrics.sum("attempts_total", &[("service", "echo"), ("outcome", outcome)]);
    assert_eq!((attempts("ok"), attempts("connect_failed")), (2.0, 2.0));
    let retries = [("service", "echo"), ("reason", "connect_failed")];
    assert_eq!(metrics.sum("retries_total", &retries), 2.0);
    assert_eq!(metrics.sum("picks_total", &[("service", "echo")]), 4.0);
    assert_eq!(metrics.sum("endpoints", &[("service", "echo"), ("state", "ready")]), 2.0);
    assert_eq!(metrics.sum("source_synced", &[("source", "file")]), 1.0);
    assert_eq!(metrics.sum("source_rejected_records", &[("source", "file")]), 1.0);
}

#[tokio::test]
async fn names_that_callers_make_up_are_no_labels() {
    let pillion = Pillion::start("", []).await;
    let client = Client::connect(pillion.address()).await;
    for number in 0..50 {
        client.call(&format!("made-up-{number}")).await;
        client.call(&format!("made:up-{number}")).await;
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("requests_total", &[("service", "unknown")]), 100.0);
    assert!(!pillion.get("/metrics").await.text.contains("made"));
}

#[tokio::test]
async fn the_series_of_an_endpoint_go_with_it_and_are_a_hundred_at_most() {
    let (backend, gone) = (Backend::echo().await, Backend::echo().await);
    let (stays, leaves) = (backend.address().to_string(), gone.address().to_string());
    let both = [backend.as_endpoint("echo"), gone.as_endpoint("echo")];
    let pillion = Pillion::start("", both).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..4 {
        client.call("echo").await;
    }
    let endpoints = async || {
        let metrics = pillion.metrics().await;
        metrics.values_of("endpoint", "picks_total", &[("service", "echo")])
    };
    let mut expected = vec![stays.clone(), leaves];
    expected.sort();
    assert_eq!(endpoints().await, expected);
    pillion.set_endpoints([backend.as_endpoint("echo")]).await;
    assert_eq!(endpoints().await, [stays]);
    let many = (1..=150).map(|host| endpoint("echo", ([10, 0, 0, host], 80).into(), ""));
    pillion.set_endpoints(many).await;
    let series = endpoints().await;
    assert_eq!(series.len(), 101);
    assert!(series.contains(&"other".to_owned()));
}
