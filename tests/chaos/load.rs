//! A registry in which much is or happens, not all of it sensible, and operators who want to see all of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::client::{Client, grpc_with, message};
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::leaf::Leaf;
use crate::program::{Pillion, endpoint};
use crate::scene::{age, backends, endpoints, key, proxy, until_ready, value};
use crate::wait::until;

/// CPU time that the program has used.
fn cpu(pillion: &Pillion) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pillion.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    // 100 a second, wherever this runs.
    Duration::from_millis(ticks * 10)
}

/// Puts as many as it can, up to 1000 a second, into the service that is called and into others.
async fn churn(length: Duration) {
    let etcd = Etcd::start().await;
    let stable = backends(&etcd, 3).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 3).await;
    let (mut client, began, before) = (etcd.client().await, Instant::now(), cpu(&pillion));
    let mut puts = 0_u32;
    while began.elapsed() < length {
        for _ in 0..10 {
            // Weights change, and instances without an end of their own come.
            let address = stable[puts as usize % 3].address();
            let value = format!(
                r#"{{"Op":0,"Addr":"{address}","Metadata":{{"weight":"{}"}}}}"#,
                1 + puts % 7
            );
            client.put(key(address), value, None).await.unwrap();
            puts += 1;
        }
        let due = Duration::from_millis(u64::from(puts));
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    let share = (cpu(&pillion) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{puts} puts in {:?}, {share:.2} CPUs with calls", began.elapsed());
    let last = 1 + (puts - 1) % 7;
    let address = stable[(puts as usize - 1) % 3].address().to_string();
    until("the last put is seen", async || {
        let page = pillion.get("/services/orders").await.json();
        let all = page["endpoints"].as_array().unwrap();
        all.iter().any(|e| e["address"] == address.as_str() && e["weight"] == last)
    })
    .await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    assert_eq!(pillion.metrics().await.sum("source_resyncs_total", &[]), 0.0);
    flow.end().await;
}

#[tokio::test]
async fn a_thousand_puts_a_second_cost_no_call() {
    churn(Duration::from_secs(3)).await;
}

#[tokio::test]
#[ignore = "a minute; `make test-long`"]
async fn a_thousand_puts_a_second_for_a_minute_cost_no_call() {
    churn(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn values_that_nobody_can_read_harm_nobody_else() {
    let etcd = Etcd::start().await;
    let backends = backends(&etcd, 2).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let mut client = etcd.client().await;
    client.put("orders/garbage", "{\"Addr\":", None).await.unwrap();
    client.put("orders/huge", vec![b'x'; 1_400_000], None).await.unwrap();
    client.put(&b"orders/\xff\xfe\x00"[..], value(backends[0].address()), None).await.unwrap();
    // What an endpoint said before it said nonsense stays in use.
    client.put(key(backends[0].address()), vec![0xff; 70_000], None).await.unwrap();
    let rejected = async || pillion.metrics().await.sum("source_rejected_records", &[]);
    until("all are counted", async || rejected().await == 4.0).await;
    assert_eq!(endpoints(&pillion, ["ready"]).await, [2]);
    let other = Client::connect(pillion.address()).await;
    for _ in 0..20 {
        assert!(other.call("orders").await.is_ok());
    }
    client.put(key(backends[0].address()), value(backends[0].address()), None).await.unwrap();
    until("a mended one is not", async || rejected().await == 3.0).await;
    flow.end().await;
}

#[tokio::test]
async fn many_endpoints_are_called_beside_operators_who_read_slowly() {
    crowd(1_000, 500).await;
}

#[tokio::test]
#[ignore = "a minute where nothing is optimised; `make test-long`"]
async fn fifteen_thousand_endpoints_are_called_beside_operators_who_read_slowly() {
    crowd(10_000, 5_000).await;
}

/// So many endpoints of `orders`, and services beside it.
async fn crowd(endpoints: usize, services: usize) {
    let leaf = Leaf::at("0.0.0.0:0", &[]).await;
    let port = leaf.address().port();
    // All of 127.0.0.0/8 is this host.
    let address =
        |n: usize| SocketAddr::from(([127, 1, (n / 250) as u8, (n % 250) as u8 + 1], port));
    let orders = (0..endpoints).map(|n| endpoint("orders", address(n), ""));
    let others = (0..services).map(|n| endpoint(&format!("service-{n}"), address(n), ""));
    let pillion = Pillion::start("", [endpoint("orders", address(0), "")]).await;
    let flow = Flow::start(&pillion, "orders").await;
    let (before, _) = pillion.memory();
    let read = Instant::now();
    pillion.set_endpoints(orders.chain(others)).await;
    println!("read after {:?}", read.elapsed());
    assert_eq!(crate::scene::endpoints(&pillion, ["ready"]).await, [endpoints]);

    // Each asks for megabytes and takes none of them.
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut operator = TcpStream::connect(pillion.admin()).await.unwrap();
        let request = b"GET /services/orders HTTP/1.1\r\nhost: admin\r\n\r\n";
        operator.write_all(request).await.unwrap();
        slow.push(operator);
    }
    let scrapes = pillion.metrics().await.sum("picks_total", &[]);
    for _ in 0..20 {
        let _ = pillion.metrics().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    flow.more().await;
    assert!(pillion.metrics().await.sum("picks_total", &[]) > scrapes, "calls went on");
    let (after, most) = pillion.memory();
    let (grown, most) = ((after - before) >> 20, (most - before) >> 20);
    println!("grew by {grown} MiB, by {most} MiB while it read");
    assert!(grown < 128, "grew by {grown} MiB");
    flow.end().await;
}

#[tokio::test]
async fn every_way_to_write_an_address_is_dialled_or_refused_with_a_reason() {
    let (four, six) = (Leaf::start().await, Leaf::at("[::1]:0", &[]).await);
    let etcd = Etcd::start().await;
    let pillion = proxy(&etcd.url(), "").await;
    let client = Client::connect(pillion.address()).await;
    let (port, port_six) = (four.address().port(), six.address().port());
    let good = [
        format!("[::1]:{port_six}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
    ];
    let bad = [
        "127.0.0.1:0",
        "127.0.0.1",
        "::1",
        "[::1]",
        ":80",
        "",
        "127.0.0.1:65536",
        "a b:80",
        "\u{7}:80",
    ];
    let write = async |number: usize, address: &str| {
        let record = serde_json::json!({ "Op": 0, "Addr": address, "Metadata": null });
        etcd.put(&format!("orders/{number}"), &record.to_string()).await;
    };
    for (number, address) in good.iter().map(String::as_str).chain(bad).enumerate() {
        write(number, address).await;
    }
    until("they have been read", async || {
        let _ = client.call("orders").await;
        endpoints(&pillion, ["ready"]).await == [good.len()]
    })
    .await;
    let page = pillion.get("/services/orders").await.json();
    let rejected = page["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), bad.len(), "{page}");
    assert!(rejected.iter().all(|bad| !bad["reason"].as_str().unwrap().is_empty()), "{page}");
    for address in &good {
        let head = grpc_with("orders", &[("pillion-node", address)]);
        let answer = client.send(head, &message(b"hello")).await.unwrap();
        assert!(answer.is_ok(), "{address}: {answer:?}");
    }
}
