//! A registry in which much happens, not all of it sensible.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::Pillion;
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
