//! A bad network between proxy and etcd or endpoints, made with the system's own means.
//!
//! Each test runs itself again inside a network namespace of its own, where the packet filter is its
//! own as well; etcd, or an endpoint, is in a second one, at the other end of a wire. Where that is not allowed it is
//! skipped.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use etcd_client::{Txn, TxnOp};

use crate::backend::Backend;
use crate::client::{Answer, Client, grpc_with, message};
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::leaf::Leaf;
use crate::namespaces::Namespaces;
use crate::program::Pillion;
use crate::scene::{age, backends, proxy, register, until_ready, value};
use crate::wait::{SOON, soon, until};

/// Set for a test that runs inside: the name of the other end.
const FAR: &str = "CHAOS_FAR";

/// The name of the other end, for the test inside; none for the one that has just run it.
fn inside(test: &str) -> Option<String> {
    if let Ok(far) = std::env::var(FAR) {
        return Some(far);
    }
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let [program, arguments @ ..] = namespaces.near();
    let status = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(FAR, namespaces.far()[3])
        .status();
    assert!(status.unwrap().success());
    None
}

/// An endpoint at the other end.
async fn leaf(far: &str) -> Leaf {
    Leaf::at(&format!("{}:0", Namespaces::FAR), &["ip", "netns", "exec", far]).await
}

async fn etcd(far: &str) -> Etcd {
    Etcd::start_by(&["ip", "netns", "exec", far], Namespaces::FAR).await
}

fn run(command: &str) {
    let words = command.split(' ');
    let mut words = words.map(|word| word.replace('~', " "));
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Filters what goes to etcd or comes from it; ends with the value.
struct Filter;

impl Filter {
    /// Both ways.
    fn both(rule: &str) -> Self {
        Self::new(&["input", "output"], rule)
    }

    fn new(hooks: &[&str], rule: &str) -> Self {
        run("nft add table inet chaos");
        for hook in hooks {
            run(&format!(
                "nft add chain inet chaos {hook} {{~type~filter~hook~{hook}~priority~0~;~}}"
            ));
            let side = if *hook == "input" { "saddr" } else { "daddr" };
            let rule = rule.replace(' ', "~");
            run(&format!("nft add rule inet chaos {hook} ip~{side}~{}~{rule}", Namespaces::FAR));
        }
        Self
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        run("nft delete table inet chaos");
    }
}

#[tokio::test]
async fn an_etcd_that_resets_every_connection_is_not_hammered() {
    let Some(far) = inside("network::an_etcd_that_resets_every_connection_is_not_hammered") else {
        return;
    };
    let etcd = etcd(&far).await;
    let _backends = backends(&etcd, 2).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let resets = Filter::new(&["output"], "meta l4proto tcp reject with tcp reset");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let tried = pillion.metrics().await.sum("source_troubles_total", &[]);
    assert!((2.0..=12.0).contains(&tried), "{tried} in 6 s");
    drop(resets);
    let another = Backend::echo().await;
    register(&etcd, another.address()).await;
    until("the new endpoint is called", async || another.counts().calls > 0).await;
    flow.end().await;
}

#[tokio::test]
#[ignore = "half a minute; `make test-long`"]
async fn a_black_hole_is_noticed_and_what_happened_meanwhile_is_seen_soon_after_it() {
    let Some(far) = inside(
        "network::a_black_hole_is_noticed_and_what_happened_meanwhile_is_seen_soon_after_it",
    ) else {
        return;
    };
    let etcd = etcd(&far).await;
    let _backends = backends(&etcd, 2).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let another = Backend::echo().await;
    let hole = Filter::both("drop");
    let began = Instant::now();
    until("the silence shows", async || pillion.metrics().await.sum("source_up", &[]) == 0.0).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // As the etcd on the other side would be told by somebody who reaches it.
    let put = format!("ip netns exec {far} etcdctl --endpoints={} put", etcd.url());
    let (key, value) = (format!("orders/{}", another.address()), value(another.address()));
    run(&format!("{put} {key} {value}"));
    drop(hole);
    let mended = Instant::now();
    until("the new endpoint is called", async || another.counts().calls > 0).await;
    assert!(mended.elapsed() < Duration::from_secs(15), "{:?}", mended.elapsed());
    flow.end().await;
}

#[tokio::test]
#[ignore = "half a minute; `make test-long`"]
async fn a_fifth_of_the_packets_lost_does_not_make_the_set_flap() {
    let Some(far) = inside("network::a_fifth_of_the_packets_lost_does_not_make_the_set_flap")
    else {
        return;
    };
    let etcd = etcd(&far).await;
    let _backends = backends(&etcd, 3).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 3).await;
    let loss = Filter::both("numgen random mod 100 < 20 drop");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let page = pillion.get("/services/orders").await.json();
        assert_eq!(page["endpoints"].as_array().unwrap().len(), 3);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let another = Backend::echo().await;
    // Lossy for the one who writes as well.
    until("it is registered", async || {
        let (key, value) = (format!("orders/{}", another.address()), value(another.address()));
        etcd.client().await.put(key, value, None).await.is_ok()
    })
    .await;
    until("the new endpoint is called", async || another.counts().calls > 0).await;
    drop(loss);
    until("it is proved", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}

#[tokio::test]
#[ignore = "half a minute; `make test-long`"]
async fn a_slow_line_carries_a_long_list_page_by_page() {
    let Some(far) = inside("network::a_slow_line_carries_a_long_list_page_by_page") else {
        return;
    };
    let etcd = etcd(&far).await;
    let _backends = backends(&etcd, 2).await;
    let mut client = etcd.client().await;
    for batch in 0..10 {
        let put = |n: usize| {
            let address = format!("10.9.{}.{}:80", n / 250, n % 250).parse().unwrap();
            TxnOp::put(format!("big/{n:04}"), value(address), None)
        };
        let puts: Vec<_> = (batch * 100..batch * 100 + 100).map(put).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    run(&format!(
        "ip netns exec {far} tc qdisc add dev eth0 root tbf rate 64kbit burst 4kb latency 1s"
    ));
    let caller = Client::connect(pillion.address()).await;
    let began = Instant::now();
    let mut known = false;
    while !known && began.elapsed() < Duration::from_secs(60) {
        // Its first calls find nothing yet; they wait no longer than they would for a connection.
        let _ = caller.call("big").await;
        known = pillion.get("/services").await.text.contains("\"big\"");
    }
    println!("1000 endpoints over 64 kbit/s took {:?}", began.elapsed());
    let page = pillion.get("/services/big").await.json();
    assert_eq!(page["endpoints"].as_array().unwrap().len(), 1000);
    assert_eq!(pillion.metrics().await.sum("source_up", &[]), 1.0);
    flow.end().await;
}

#[tokio::test]
async fn without_a_free_port_to_one_endpoint_calls_go_to_another_or_fail_at_once() {
    const HELD: [(&str, &str); 1] = [("held", "1")];
    let test = "network::without_a_free_port_to_one_endpoint_calls_go_to_another_or_fail_at_once";
    let Some(far) = inside(test) else { return };
    let (one, two) = (leaf(&far).await, leaf(&far).await);
    // A hundred connections at once may take their time.
    let config = "[defaults]\nconnect_timeout = \"20s\"";
    let pillion = Pillion::start(config, [one.as_endpoint("")]).await;
    // A connection for each call, and this many ports for them.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
    let client = Client::connect(pillion.address()).await;
    let mut open = Vec::new();
    for _ in 0..130 {
        open.push(client.begin(grpc_with("orders", &HELD)).await);
    }
    one.until_holds(100.0).await;
    let failed = [("outcome", "connect_failed")];
    let so = |metrics: &crate::metrics::Metrics| metrics.sum("attempts_total", &failed) == 30.0;
    pillion.until_metrics("the others have failed", so).await;
    let answer = client.call("orders").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
    let why = answer.header("grpc-message").unwrap();
    assert!(why.contains("assign requested address"), "{why}");

    // Ports are of a pair of addresses: another endpoint can still be connected.
    pillion.set_endpoints([one.as_endpoint(""), two.as_endpoint("")]).await;
    for _ in 0..50 {
        assert!(client.call("orders").await.is_ok());
    }
    // None is left in TIME_WAIT, so all are free again.
    drop(open);
    one.until_holds(0.0).await;
    pillion.set_endpoints([one.as_endpoint("")]).await;
    for _ in 0..300 {
        let answer = client.call("orders").await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

/// Calls `orders` at the far end, by connections of this kind, and says what each of two calls got once the
/// host has vanished: one that had been sent, and one on whose connection more is sent afterwards.
async fn after_it_vanished(far: &str, connection: &str, host_timeout: &str) -> [Answer; 2] {
    let leaf = leaf(far).await;
    let config =
        format!("[defaults]\nconnection = {connection:?}\nhost_timeout = {host_timeout:?}");
    let pillion = Pillion::start(&config, [leaf.as_endpoint("")]).await;
    let client = Client::connect(pillion.address()).await;
    // So that a connection made ahead is there to be taken.
    assert!(client.call("orders").await.is_ok());
    let quiet = client.begin(grpc_with("orders", &[("held", "1")])).await;
    let mut busy = client.begin(grpc_with("orders", &[("held", "1")])).await;
    leaf.until_holds(2.0).await;
    let vanished = Instant::now();
    let _hole = Filter::both("drop");
    busy.body.send_data(Bytes::from(message(b"hello")), false).unwrap();
    let both = async { tokio::join!(Answer::read(quiet.answer), Answer::read(busy.answer)) };
    let (quiet, busy) = tokio::time::timeout(SOON * 2, both).await.expect("they end");
    println!("{connection}: ended after {:?}", vanished.elapsed());
    [quiet.unwrap(), busy.unwrap()]
}

#[tokio::test]
async fn a_call_without_a_deadline_to_a_host_that_vanishes_ends_in_time() {
    let test = "network::a_call_without_a_deadline_to_a_host_that_vanishes_ends_in_time";
    let Some(far) = inside(test) else { return };
    for connection in ["fresh", "warm", "pooled"] {
        for answer in after_it_vanished(&far, connection, "2s").await {
            let reason = answer.header("pillion-error");
            let expected = (Some("upstream_reset"), Some(14));
            assert_eq!((reason, answer.grpc_status()), expected, "{connection}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_quiet_call_to_a_host_that_is_there_is_not_ended_by_host_timeout() {
    let test = "network::a_quiet_call_to_a_host_that_is_there_is_not_ended_by_host_timeout";
    let Some(far) = inside(test) else { return };
    let leaf = leaf(&far).await;
    let config = "[defaults]\nhost_timeout = \"1s\"";
    let pillion = Pillion::start(config, [leaf.as_endpoint("")]).await;
    let client = Client::connect(pillion.address()).await;
    let headers = [("held", "1"), ("grpc-timeout", "5S")];
    let call = client.begin(grpc_with("orders", &headers)).await;
    let answer = soon("the deadline", Answer::read(call.answer)).await.unwrap();
    assert_eq!(answer.grpc_status(), Some(4), "{answer:?}");
}

#[tokio::test]
#[ignore = "half a minute; `make test-long`"]
async fn by_default_a_host_that_vanishes_is_given_up_within_half_a_minute() {
    let test = "network::by_default_a_host_that_vanishes_is_given_up_within_half_a_minute";
    let Some(far) = inside(test) else { return };
    let began = Instant::now();
    for answer in after_it_vanished(&far, "fresh", "20s").await {
        assert_eq!(answer.header("pillion-error"), Some("upstream_reset"), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
