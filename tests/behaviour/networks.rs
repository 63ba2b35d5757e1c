//! Records are input: where they may send calls, and where the proxy does not let them.

use std::net::SocketAddr;

use serde_json::Value;

use crate::backend::Backend;
use crate::client::{Answer, Client, grpc_with};
use crate::program::{Pillion, Program, endpoint};

fn rejected(page: &Value) -> Vec<String> {
    let rejected = page["rejected"].as_array().unwrap().iter();
    rejected.map(|record| record["reason"].as_str().unwrap().to_owned()).collect()
}

fn literal(address: &str) -> String {
    endpoint("orders", address.parse().unwrap(), "")
}

/// An endpoint by name.
fn named(host: &str, port: u16) -> String {
    format!("[[endpoint]]\nservice = \"orders\"\naddress = \"{host}:{port}\"\n")
}

fn message(answer: &Answer) -> String {
    let message = answer.header("grpc-message").unwrap();
    percent_encoding::percent_decode_str(message).decode_utf8().unwrap().into_owned()
}

/// A proxy whose endpoints are in networks of its own choice.
async fn choosy(networks: &str, endpoints: impl IntoIterator<Item = String>) -> Pillion {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), endpoints.into_iter().collect::<String>()).unwrap();
    let path = file.path().display();
    let config = format!("[[source]]\nkind = \"file\"\npath = \"{path}\"\n{networks}\n");
    Program::new(&config).start().await
}

#[tokio::test]
async fn what_nobody_means_by_an_endpoint_is_rejected_with_its_reason_and_counted() {
    let good = Backend::echo().await;
    let bad = ["169.254.169.254:80", "[::ffff:169.254.1.1]:80", "0.0.0.0:80", "[fe80::1]:80"];
    let endpoints = bad.map(literal).into_iter().chain([good.as_endpoint("orders")]);
    let pillion = Pillion::start("", endpoints).await;
    let orders = pillion.get("/services/orders").await.json();
    assert_eq!(orders["endpoints"].as_array().unwrap().len(), 1);
    let reasons = rejected(&orders);
    assert_eq!(reasons.len(), bad.len(), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("credentials")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("link-local")), "{reasons:?}");
    let why = pillion.get("/why?authority=orders").await.json();
    assert_eq!(rejected(&why).len(), bad.len());
    let client = Client::connect(pillion.address()).await;
    for _ in 0..10 {
        assert_eq!(client.call("orders").await.grpc_status(), Some(0));
    }
    let counted = pillion.metrics().await.sum("source_rejected_records", &[]);
    assert_eq!(counted, bad.len() as f64);
}

#[tokio::test]
async fn where_the_proxy_itself_listens_is_no_endpoint_by_number_or_by_name() {
    let pillion = Program::new("").endpoints([]).listen("0.0.0.0:0").start().await;
    let port = pillion.address().port();
    let admin: SocketAddr = pillion.admin().parse().unwrap();
    let at = |ip: &str| literal(&format!("{ip}:{port}"));
    pillion.set_endpoints([at("127.0.0.1"), at("127.0.0.9"), literal(&admin.to_string())]).await;
    let why = pillion.get("/why?authority=orders").await.json();
    assert_eq!(why["verdict"], "no_endpoints");
    let reasons = rejected(&why);
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("itself listens")), "{reasons:?}");

    pillion.set_endpoints([named("localhost", port)]).await;
    let local: SocketAddr = ([127, 0, 0, 1], port).into();
    let answer = Client::connect(local).await.call("orders").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"), "{answer:?}");
    assert!(message(&answer).contains("itself listens"), "{answer:?}");
}

#[tokio::test]
async fn a_source_says_in_which_networks_its_endpoints_are() {
    let backend = Backend::echo().await;
    let denied = choosy("deny = [\"127.0.0.0/8\", \"::1\"]", [backend.as_endpoint("orders")]).await;
    let reasons = rejected(&denied.get("/services/orders").await.json());
    assert_eq!(reasons, ["127.0.0.1 is in 127.0.0.0/8, which the source denies"]);

    let named = [named("localhost", backend.address().port())];
    let by_name = choosy("allow = [\"10.0.0.0/8\"]", named).await;
    let answer = Client::connect(by_name.address()).await.call("orders").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"), "{answer:?}");
    assert!(message(&answer).contains("is in no network that the source allows"), "{answer:?}");
    assert_eq!(backend.counts().accepted, 0);

    let allowed = choosy("allow = [\"127.0.0.1\"]", [backend.as_endpoint("orders")]).await;
    let answer = Client::connect(allowed.address()).await.call("orders").await;
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
}

#[tokio::test]
async fn a_call_between_two_proxies_that_point_at_each_other_ends() {
    let [there, back] = [Pillion::start("", []).await, Pillion::start("", []).await];
    there.set_endpoints([endpoint("orders", back.address(), "")]).await;
    back.set_endpoints([endpoint("orders", there.address(), "")]).await;
    let answer = Client::connect(there.address()).await.call("orders").await;
    assert_eq!(answer.header("pillion-error"), Some("loop_detected"), "{answer:?}");
    assert_eq!(answer.grpc_status(), Some(10), "ABORTED");
    assert!(message(&answer).contains("goes in circles"), "{answer:?}");
    let mut passed = 0.0;
    for pillion in [&there, &back] {
        pillion
            .until_metrics("its calls have ended", |m| m.sum("requests_in_flight", &[]) == 0.0)
            .await;
        passed += pillion.metrics().await.sum("requests_total", &[]);
    }
    assert_eq!(passed, 4.0, "there, back, there, and back again");
}

#[tokio::test]
async fn what_an_application_copies_from_one_call_into_another_makes_no_loop() {
    let backend = Backend::echo().await;
    let [near, far] = [Pillion::start("", []).await, Pillion::start("", []).await];
    let services = ["a", "b", "c"];
    near.set_endpoints(services.map(|service| endpoint(service, far.address(), ""))).await;
    far.set_endpoints(services.map(|service| backend.as_endpoint(service))).await;
    let client = Client::connect(near.address()).await;
    let mut copied = Vec::<(String, String)>::new();
    for service in services {
        let headers: Vec<_> = copied.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert!(client.send(grpc_with(service, &headers), b"").await.unwrap().is_ok(), "{service}");
        let head = backend.last_head();
        let all = head
            .headers
            .iter()
            .filter(|(name, _)| ["via", "pillion-attempt"].contains(&name.as_str()));
        copied = all
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
    }
    assert_eq!(copied.iter().filter(|(name, _)| name == "via").count(), 5, "{copied:?}");
}
