//! From records in a real etcd to calls at real servers: the promise of the program as a whole.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::backend::Backend;
use crate::client::{Client, grpc, message};
use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::python::PythonServer;
use crate::wait::delay;

async fn proxy_of(etcd: &Etcd) -> Pillion {
    // On a busy machine a server that is well takes its time as well.
    let config = "[service.orders]\nconnect_timeout = \"20s\"";
    Program::new(&format!("{config}\n[[source]]\nendpoints = [\"{}\"]", etcd.url())).start().await
}

/// Puts an endpoint as etcd's own naming package does.
async fn put(etcd: &Etcd, address: SocketAddr, weight: u32) {
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{"weight":"{weight}"}}}}"#);
    etcd.put(&format!("orders/{address}"), &value).await;
}

/// Which of the Python servers answers a call.
async fn call(client: &Client) -> String {
    let answer = client.send(grpc("orders"), &message(b"hello")).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    answer.header("server").unwrap().to_owned()
}

#[tokio::test]
async fn three_python_servers_share_calls_by_weight_and_one_that_dies_costs_none() {
    let etcd = Etcd::start().await;
    let mut servers = ["one", "two", "three"].map(PythonServer::start);
    for (server, weight) in servers.iter().zip(1..) {
        put(&etcd, server.address(), weight).await;
    }
    let pillion = proxy_of(&etcd).await;
    let client = Client::connect(pillion.address()).await;
    let mut shares = HashMap::new();
    // One at a time: on a busy machine one of the servers may be slow, and then calls rightly shift.
    for _ in 0..1_200 {
        *shares.entry(call(&client).await).or_insert(0.0) += 1.0;
    }
    for (server, expected) in [("one", 200.0), ("two", 400.0), ("three", 600.0)] {
        assert!((shares[server] / expected - 1.0_f64).abs() < 0.05, "{shares:?}");
    }
    let retries = async || pillion.metrics().await.sum("retries_total", &[("service", "orders")]);
    assert_eq!(retries().await, 0.0);
    servers[1].kill();
    for _ in 0..200 {
        assert_ne!(call(&client).await, "two");
    }
    assert!(retries().await > 0.0);
}

#[tokio::test]
async fn a_put_and_a_delete_act_on_calls_within_50_milliseconds() {
    let etcd = Etcd::start().await;
    let (stays, comes_and_goes) = (Backend::echo().await, Backend::echo().await);
    put(&etcd, stays.address(), 100).await;
    let pillion = proxy_of(&etcd).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("orders").await.from(), stays.address());
    let other = comes_and_goes.address();
    // A busy machine may be late now and then; it is not late every time.
    let limit = Duration::from_millis(50);
    let (mut put_took, mut delete_took) = (Duration::MAX, Duration::MAX);
    for _ in 0..30 {
        let acts = async || client.call("orders").await.from() == other;
        put_took = put_took.min(delay(put(&etcd, other, 100), acts).await);
        etcd.delete(&format!("orders/{other}")).await;
        let began = Instant::now();
        let mut last = Duration::ZERO;
        while began.elapsed() < Duration::from_millis(300) {
            if client.call("orders").await.from() == other {
                last = began.elapsed();
            }
        }
        delete_took = delete_took.min(last);
        if put_took < limit && delete_took < limit {
            return;
        }
    }
    panic!("a put took {put_took:?} and a delete {delete_took:?} at least");
}

#[tokio::test]
async fn calls_go_on_while_etcd_is_away_and_see_what_has_changed_when_it_is_back() {
    let mut etcd = Etcd::start().await;
    let (one, two) = (Backend::echo().await, Backend::echo().await);
    put(&etcd, one.address(), 100).await;
    let pillion = proxy_of(&etcd).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("orders").await.from(), one.address());
    etcd.kill();
    for _ in 0..20 {
        assert_eq!(client.call("orders").await.from(), one.address());
    }
    // What nobody has asked for yet cannot be known now.
    let unseen = client.call("pay").await;
    assert_eq!(unseen.header("pillion-error"), Some("registry_unavailable"));
    etcd.restart().await;
    put(&etcd, two.address(), 100).await;
    etcd.delete(&format!("orders/{}", one.address())).await;
    crate::wait::until("the change is seen", async || {
        client.call("orders").await.from() == two.address()
    })
    .await;
}

#[tokio::test]
async fn concurrent_first_calls_of_a_service_are_answered_after_one_list() {
    let etcd = Etcd::start().await;
    let backend = Backend::echo().await;
    put(&etcd, backend.address(), 100).await;
    let pillion = proxy_of(&etcd).await;
    let client = Client::connect(pillion.address()).await;
    let before = etcd.calls("Range").await;
    let answers = futures_util::future::join_all((0..50).map(|_| client.call("orders"))).await;
    assert!(answers.iter().all(|answer| answer.from() == backend.address()));
    assert_eq!(etcd.calls("Range").await - before, 1);
}
