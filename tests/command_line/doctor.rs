//! `pillion doctor`: for each way that a call can break, the step that it breaks at and what to do.

use serde_json::Value;

use crate::canned_admin::CannedAdmin;
use crate::endpoints::{Endpoint, refused};
use crate::etcd::Etcd;
use crate::tls::Authority;
use crate::tls_peer::TlsFront;
use crate::{Outcome, file, pillion};

const SERVING: Option<u8> = Some(1);
const NOT_SERVING: Option<u8> = Some(2);

/// No proxy of this host has a part in it.
fn doctor(etcd: &Etcd, args: &[&str]) -> Outcome {
    let (_folder, path) = file("[admin]\naddress = \"unix:/nowhere/admin.sock\"");
    let url = etcd.url();
    pillion(&[&["doctor", "-c", &path, "--etcd", &url], args].concat())
}

/// `step on outcome` of each step.
fn steps(outcome: &Outcome) -> Vec<String> {
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let step = |step: &Value| {
        let text = |key: &str| step[key].as_str().unwrap().to_owned();
        assert_eq!(step["advice"].is_null(), matches!(&*text("outcome"), "ok" | "skipped"));
        format!("{} {} {}", text("step"), text("on"), text("outcome"))
    };
    report["steps"].as_array().unwrap().iter().map(step).collect()
}

/// The only step that has not gone well, with what was found and what to do.
fn trouble(outcome: &Outcome) -> (String, String, String) {
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let bad = report["steps"].as_array().unwrap().iter();
    let bad: Vec<_> = bad.filter(|step| !step["advice"].is_null()).collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    let text = |key: &str| bad[0][key].as_str().unwrap().to_owned();
    (format!("{} {}", text("step"), text("outcome")), text("detail"), text("advice"))
}

/// What is in trouble when `orders` has one endpoint, at this address.
async fn trouble_with(address: std::net::SocketAddr) -> (String, String, String) {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &address.to_string()).await;
    let outcome = doctor(&etcd, &["orders", "-o", "json"]);
    assert_eq!((outcome.status, &*outcome.stderr), (1, "error: 1 step has failed\n"));
    trouble(&outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_way_without_trouble_is_walked_to_its_end_and_ends_with_0() {
    let (etcd, server) = (Etcd::start().await, Endpoint::grpc(SERVING).await);
    let plain = Endpoint::grpc(None).await;
    etcd.put("orders/1", &server.address().to_string()).await;
    etcd.put("orders/2", &plain.address().to_string()).await;
    let outcome = doctor(&etcd, &["orders:8443", "-o", "json"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let mut expected = vec![
        "resolve orders:8443 ok".to_owned(),
        format!("etcd main {} ok", etcd.url()),
        "list orders ok".to_owned(),
        "pick p2c ok".to_owned(),
    ];
    let mut both = [(server.address().to_string(), "ok"), (plain.address().to_string(), "skipped")];
    both.sort();
    for (address, health) in both {
        expected.push(format!("connect {address} ok"));
        expected.push(format!("settings {address} ok"));
        expected.push(format!("health {address} {health}"));
    }
    expected.push("proxy unix:/nowhere/admin.sock skipped".to_owned());
    assert_eq!(steps(&outcome), expected);

    let table = doctor(&etcd, &["orders"]).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("STEP      ON  ") && lines[0].ends_with("  FOUND"), "{table}");
    assert!(lines.iter().any(|line| line.contains("50.0% of the calls")), "{table}");
}

#[tokio::test]
async fn an_unknown_service_is_told_with_the_name_or_the_prefix_that_may_be_meant() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", "127.0.0.1:1").await;
    etcd.put("/elsewhere/pay/1", "127.0.0.1:1").await;
    for (authority, expected) in [
        ("ordes", "there is a service orders: is that meant?"),
        ("Orders", "there is a service orders: is that meant?"),
        ("pay", "there are keys of it below \"/elsewhere\": set the source's `prefix` to that"),
        ("unheard-of", "is it registered at all, and is the authority the name"),
    ] {
        let outcome = doctor(&etcd, &[authority, "-o", "json"]);
        let (step, found, advice) = trouble(&outcome);
        assert_eq!((outcome.status, &*step), (1, "list failed"));
        assert_eq!(found, format!("no source knows a service {authority}"));
        assert!(advice.starts_with(expected), "{advice}");
    }
}

#[tokio::test]
async fn an_authority_that_is_no_name_breaks_at_once() {
    let outcome = doctor(&Etcd::stopped(), &["a/b", "-o", "json"]);
    let (step, found, advice) = trouble(&outcome);
    assert_eq!((outcome.status, &*step), (1, "resolve failed"));
    assert!(found.contains("holds '/'") && advice.contains("[[route]]"), "{found}, {advice}");
}

#[tokio::test]
async fn an_etcd_that_is_down_is_told_by_its_member() {
    let etcd = Etcd::stopped();
    let outcome = doctor(&etcd, &["orders", "-o", "json"]);
    assert_eq!(outcome.status, 1);
    let expected = [
        "resolve orders ok".to_owned(),
        format!("etcd main {} failed", etcd.url()),
        "list orders failed".to_owned(),
    ];
    assert_eq!(steps(&outcome)[..3], expected);
    // One member of two is no more than a warning.
    let up = Etcd::start().await;
    up.put("orders/1", "nonsense").await;
    let both = format!("{},{}", etcd.url(), up.url());
    let outcome = pillion(&["doctor", "orders", "-o", "json", "--etcd", &both]);
    assert_eq!(steps(&outcome)[1], format!("etcd main {} warning", etcd.url()));
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_told() {
    let (step, found, advice) = trouble_with(refused()).await;
    assert_eq!(step, "connect failed");
    assert!(found.contains("Connection refused") && advice.contains("is the process running"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endpoint_that_says_nothing_is_told() {
    let silent = Endpoint::silent().await;
    let (step, found, advice) = trouble_with(silent.address()).await;
    assert_eq!(step, "settings failed");
    assert!(found.contains("then says nothing") && advice.contains("the process hangs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endpoint_that_does_not_speak_http2_is_told_by_what_it_speaks() {
    let http = Endpoint::says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (step, found, advice) = trouble_with(http.address()).await;
    assert_eq!((&*step, &*found), ("settings failed", "it speaks HTTP/1, not HTTP/2"));
    assert!(advice.contains("the port that serves gRPC"));
    let tls = Endpoint::says(b"\x15\x03\x03\0\x02\x02\x46\0\0").await;
    assert!(trouble_with(tls.address()).await.1.contains("it speaks TLS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endpoint_that_says_it_is_not_ready_is_told() {
    let server = Endpoint::grpc(NOT_SERVING).await;
    let (step, found, _) = trouble_with(server.address()).await;
    assert_eq!((&*step, &*found), ("health failed", "NOT_SERVING"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endpoint_that_takes_calls_and_answers_none_is_told() {
    let server = Endpoint::hangs().await;
    let (step, found, advice) = trouble_with(server.address()).await;
    assert_eq!((&*step, &*found), ("health failed", "no answer within 3s"));
    assert!(advice.contains("it hangs"), "{advice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_filter_or_a_pin_that_leaves_nothing_is_told() {
    let (etcd, server) = (Etcd::start().await, Endpoint::grpc(SERVING).await);
    etcd.put("orders/1", &server.address().to_string()).await;
    for header in ["pillion-filter: version=v9", "pillion-node: other"] {
        let outcome = doctor(&etcd, &["orders", "-o", "json", "-H", header]);
        let (step, _, advice) = trouble(&outcome);
        assert_eq!((outcome.status, &*step), (1, "pick failed"), "{header}");
        assert!(advice.contains("`pillion registry ls`"), "{advice}");
    }
    let outcome = doctor(&etcd, &["orders", "-H", "pillion-filter: ((("]);
    assert_eq!(outcome.status, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_that_cannot_be_used_is_a_warning_beside_one_that_can() {
    let (etcd, server) = (Etcd::start().await, Endpoint::grpc(SERVING).await);
    etcd.put("orders/1", &server.address().to_string()).await;
    etcd.put("orders/2", "nonsense").await;
    let outcome = doctor(&etcd, &["orders", "-o", "json"]);
    assert_eq!((outcome.status, &*trouble(&outcome).0), (0, "list warning"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_proxy_that_runs_is_compared_with_what_etcd_holds() {
    let (etcd, server) = (Etcd::start().await, Endpoint::grpc(SERVING).await);
    let address = server.address().to_string();
    etcd.put("orders/1", &address).await;
    let knows = |address: &str| {
        let endpoint = format!(r#"{{"address":"{address}","weight":100,"state":"ready"}}"#);
        format!(r#"{{"name":"orders","revision":1,"endpoints":[{endpoint}],"rejected":[]}}"#)
    };
    let ask = |answer: String| {
        let admin = CannedAdmin::tcp(&[("/services/orders", 200, answer.leak())]);
        doctor(&etcd, &["orders", "-o", "json", "--admin", admin.url()])
    };
    let outcome = ask(knows(&address));
    assert_eq!(outcome.status, 0, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("knows the same: 1 ready"));
    let outcome = ask(knows("127.0.0.1:1"));
    let (step, found, _) = trouble(&outcome);
    assert_eq!((outcome.status, &*step), (1, "proxy failed"));
    assert_eq!(found, format!("it does not know {address}; it still knows 127.0.0.1:1"));
    // One that is named must answer.
    let outcome = doctor(&etcd, &["orders", "-o", "json", "--admin", "http://127.0.0.1:1"]);
    assert_eq!((outcome.status, &*trouble(&outcome).0), (1, "proxy failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn routes_and_sources_of_a_configuration_have_their_part() {
    let server = Endpoint::grpc(SERVING).await;
    let (folder, path) = file(
        "[admin]\naddress = \"unix:/nowhere/admin.sock\"\n\
         [[source]]\nkind = \"file\"\npath = \"services.toml\"\n\
         [[route]]\nauthority = \"*.internal\"\nservice = \"orders\"\n",
    );
    let endpoint =
        format!("[[endpoint]]\nservice = \"orders\"\naddress = \"{}\"\n", server.address());
    std::fs::write(folder.path().join("services.toml"), endpoint).unwrap();
    let outcome = pillion(&["doctor", "shop.internal", "-c", &path]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert!(outcome.stdout.contains("names the service orders"), "{}", outcome.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tls_is_spoken_as_calls_speak_it_and_what_is_wrong_with_a_certificate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let server = Endpoint::grpc(SERVING).await;
    let pair = authority.sign_for("orders", "DNS:orders");
    let front = TlsFront::start(server.address(), &pair, None).await;
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &front.address().to_string()).await;
    let walk = |keys: &str| {
        let text = format!(
            "[admin]\naddress = \"unix:/nowhere/admin.sock\"\n[defaults.tls]\nmode = \"on\"\nca = {:?}\n{keys}",
            authority.cert()
        );
        let (_folder, path) = file(&text);
        pillion(&["doctor", "-c", &path, "--etcd", &etcd.url(), "orders", "-o", "json"])
    };
    let outcome = walk("");
    assert_eq!(outcome.status, 0, "{}", outcome.stdout);
    let of_endpoint = ["connect", "tls", "settings", "health"];
    let expected: Vec<_> =
        of_endpoint.iter().map(|step| format!("{step} {} ok", front.address())).collect();
    assert!(steps(&outcome).windows(4).any(|window| window == expected), "{:?}", steps(&outcome));
    let outcome = walk("verify = [\"spiffe://prod/*\"]");
    let (step, detail, advice) = trouble(&outcome);
    assert_eq!(step, "tls failed");
    assert!(detail.contains("its certificate is for orders, not for spiffe://prod/*"), "{detail}");
    assert!(advice.contains("`verify`"), "{advice}");
}
