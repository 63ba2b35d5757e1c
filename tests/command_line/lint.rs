//! `pillion registry lint`: each fault that is planted is found, and nothing where there is none.

use serde_json::Value;

use crate::endpoints::{Endpoint, refused};
use crate::etcd::Etcd;
use crate::{Outcome, pillion};

fn lint(etcd: &Etcd, args: &[&str]) -> Outcome {
    let url = etcd.url();
    pillion(&[&["registry", "lint", "--etcd", &url], args].concat())
}

fn naming(address: &str, metadata: &str) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{{metadata}}}}}"#)
}

/// Rule and key, or service, of everything that is found.
fn found(outcome: &Outcome) -> Vec<String> {
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let finding = |f: &Value| {
        let place = f["key"].as_str().or_else(|| f["service"].as_str()).unwrap_or_default();
        format!("{} {place}", f["rule"].as_str().unwrap())
    };
    findings.map(finding).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_registry_that_is_well_ends_with_0() {
    let (etcd, server) = (Etcd::start().await, Endpoint::grpc(None).await);
    etcd.put_leased("orders/1", &server.address().to_string(), 600).await;
    etcd.put("pay/1", &naming(&server.address().to_string(), r#""weight":"3""#)).await;
    let outcome = lint(&etcd, &[]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout.split(" at revision ").next().unwrap(),
        "2 services, 2 keys below \"\""
    );
    assert!(outcome.stdout.ends_with("1 endpoint connected to: 0 errors, 0 warnings, 0 notes\n"));
    // An empty registry is well, too.
    assert_eq!(lint(&Etcd::start().await, &[]).status, 0);
}

#[tokio::test]
async fn every_fault_that_is_planted_is_found_and_ends_with_1() {
    let etcd = Etcd::start().await;
    let well = Endpoint::grpc(None).await.address().to_string();
    let nodes =
        |name: &str| format!(r#"{{"name":"{name}","nodes":[{{"ip":"10.0.0.1","port":80}}]}}"#);
    for (key, value) in [
        ("unreadable/1", "{".to_owned()),
        ("wildcard/1", naming("0.0.0.0:80", "")),
        ("forbidden/1", naming(&well, r#""state":"forbidden""#)),
        ("permanent/1", well.clone()),
        ("twice/1", naming(&well, "")),
        ("twice/2", naming(&well, "")),
        ("drained/1", naming(&well, r#""weight":"0""#)),
        ("clock/1", naming(&well, r#""timestamp":"99999999999""#)),
        ("inner/eu/1", naming(&well, "")),
        ("inner/1", naming(&well, "")),
        ("loose", "x".to_owned()),
    ] {
        etcd.put(key, &value).await;
    }
    etcd.put_leased("koala/10.0.0.1:80", &nodes("koala"), 600).await;
    etcd.put_leased("koalas/10.0.0.1:80", &nodes("koalas"), 600).await;
    etcd.put_leased("short/1", &well, 3).await;
    etcd.put_leased("long/1", &well, 7200).await;
    let outcome = lint(&etcd, &["--no-dial", "-o", "json"]);
    assert_eq!(outcome.status, 1);
    assert_eq!(outcome.stderr, "error: 10 things are wrong\n");
    assert_eq!(
        found(&outcome),
        [
            "unreadable unreadable/1",
            "wildcard_address wildcard/1",
            "all_forbidden forbidden",
            "no_lease permanent/1",
            "duplicate_address twice",
            "all_weights_zero drained",
            "clock clock/1",
            "prefix_collision koala",
            "nested_service inner",
            "lease_short short/1",
            "lease_long long/1",
            "stray_keys ",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn endpoints_are_found_by_how_they_fail_and_shown_with_what_to_do() {
    let etcd = Etcd::start().await;
    let (well, silent) = (Endpoint::grpc(None).await, Endpoint::silent().await);
    let (http, closes) = (Endpoint::says(b"HTTP/1.1 400 Bad").await, Endpoint::says(b"").await);
    let endpoints = [
        ("well", well.address()),
        ("refused", refused()),
        ("silent", silent.address()),
        ("http", http.address()),
        ("closes", closes.address()),
    ];
    for (name, address) in endpoints {
        etcd.put(&format!("orders/{name}"), &naming(&address.to_string(), "")).await;
    }
    let args = ["orders", "--dial-timeout", "300ms"];
    let outcome = lint(&etcd, &[&args[..], &["-o", "json"]].concat());
    assert_eq!(outcome.status, 1);
    assert_eq!(
        found(&outcome),
        [
            "unreachable orders/refused",
            "silent orders/silent",
            "not_http2 orders/closes",
            "not_http2 orders/http",
        ]
    );
    let outcome = lint(&etcd, &args);
    assert_eq!(outcome.stderr, "error: 4 things are wrong\n");
    for expected in [
        "ERROR silent: endpoints that do not answer\n",
        "it takes connections, and then says nothing within 300ms\n",
        "  -> a firewall that drops packets, a host that is gone, or a process that hangs",
        "it takes connections and closes them\n",
        "it speaks HTTP/1, not HTTP/2\n",
    ] {
        assert!(outcome.stdout.contains(expected), "{expected}: {}", outcome.stdout);
    }
    // Nobody is asked who need not be.
    assert_eq!(lint(&etcd, &["orders", "--no-dial"]).status, 0);
}

#[tokio::test]
async fn a_rule_that_is_allowed_finds_nothing() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", "10.0.0.1:80").await;
    assert_eq!(lint(&etcd, &["--no-dial"]).status, 1);
    assert_eq!(lint(&etcd, &["--no-dial", "--allow", "no_lease"]).status, 0);
    let outcome = lint(&etcd, &["--allow", "no_leases"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("a similar value exists: 'no_lease'"));
}
