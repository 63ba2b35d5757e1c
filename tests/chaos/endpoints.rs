//! Endpoints that stand still, are restarted, are all gone, or are slower than their siblings.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::{sync::watch, time::sleep};

use crate::backend::Backend;
use crate::client::{Answer, Client, grpc_with, message};
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::leaf::Leaf;
use crate::program::Pillion;
use crate::scene::{backends, key, proxy, register, until_ready};
use crate::wait::{soon, until};

async fn freeze(connection: &str) {
    let (alive, frozen) = (Backend::echo().await, Leaf::start().await);
    let config = format!(
        "[defaults]\nconnection = \"{connection}\"\nconnect_timeout = \"1500ms\"\nfilter = \"version=first;\""
    );
    let endpoints = [frozen.as_endpoint("version = \"first\""), alive.as_endpoint("orders")];
    let pillion = Pillion::start(&config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let headers = [("held", "1"), ("grpc-timeout", "4S")];
    let calls = join_all((0..5).map(|_| client.begin(grpc_with("orders", &headers)))).await;
    frozen.until_holds(5.0).await;
    frozen.pillion.signal(Signal::STOP);
    for call in calls {
        let answer = soon("the deadline", Answer::read(call.answer)).await.unwrap();
        assert_eq!(answer.header("pillion-error"), Some("deadline_exceeded"), "{connection}");
    }
    assert_eq!(alive.counts().calls, 0, "{connection}: nobody knows whether they were processed");
    // What is shared with the frozen one is found out by the first call that waits in vain.
    let hurried = || grpc_with("orders", &[("grpc-timeout", "3S")]);
    until("calls are answered by the other", async || {
        client.send(hurried(), &message(b"hello")).await.unwrap().is_ok()
    })
    .await;
    for _ in 0..10 {
        let answer = client.call("orders").await;
        assert!(answer.is_ok(), "{connection}: {answer:?}");
        assert_eq!(answer.from(), alive.address());
    }
}

#[tokio::test]
async fn calls_on_an_endpoint_that_is_frozen_end_in_time_and_later_ones_go_elsewhere() {
    tokio::join!(freeze("fresh"), freeze("pooled"));
}

#[tokio::test]
async fn a_rolling_restart_of_all_endpoints_costs_no_call() {
    for connection in ["fresh", "pooled"] {
        let etcd = Etcd::start().await;
        let mut running = backends(&etcd, 3).await;
        let pillion =
            proxy(&etcd.url(), &format!("[defaults]\nconnection = \"{connection}\"")).await;
        let flow = Flow::start(&pillion, "orders").await;
        until_ready(&pillion, 3).await;
        for old in &mut running {
            // It says GOAWAY and ends before anyone has taken its key out of etcd.
            old.close().await;
            flow.more().await;
            let new = Backend::echo().await;
            register(&etcd, new.address()).await;
            etcd.delete(&key(old.address())).await;
            new.until("it is called", |counts| counts.calls > 0).await;
            *old = new;
        }
        until_ready(&pillion, 3).await;
        flow.end().await;
    }
}

#[tokio::test]
async fn with_all_endpoints_down_calls_fail_at_once_and_succeed_as_soon_as_one_is_back() {
    let mut all = [Backend::echo().await, Backend::echo().await, Backend::echo().await];
    // Who waited for a time limit would wait for longer than this test does; so would who waited for an
    // endpoint that was ejected.
    let config = "[defaults]\nconnect_timeout = \"5m\"";
    let pillion = Pillion::start(config, all.each_ref().map(|b| b.as_endpoint("orders"))).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("orders").await.is_ok());
    for backend in &mut all {
        backend.kill().await;
    }
    // 200 a second, whatever becomes of them.
    let calls = (0..200_u32).map(|number| {
        let client = &client;
        async move {
            sleep(Duration::from_millis(5) * number).await;
            let called = Instant::now();
            let answer = client.call("orders").await;
            assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
            called.elapsed()
        }
    });
    let mut took = join_all(calls).await;
    took.sort();
    println!("half of the calls failed within {:?}, all within {:?}", took[100], took[199]);
    let attempts = pillion.metrics().await.sum("attempts_total", &[("outcome", "connect_failed")]);
    assert!(attempts <= 600.0, "{attempts} attempts of 200 calls");
    for dead in &all {
        let mut back = dead.restarted().await;
        let began = Instant::now();
        until("calls are answered", async || client.call("orders").await.is_ok()).await;
        println!("answered {:?} after it was back", began.elapsed());
        back.kill().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_slower_than_its_siblings_holds_up_its_own_calls_alone() {
    // Slow is who answers one call while the others answer fifty, however fast the machine is.
    let answered = watch::Sender::new(0);
    let [one, two, slow] = [false, false, true].map(|is_slow| {
        let answered = answered.clone();
        Backend::start(move |call| {
            let answered = answered.clone();
            async move {
                let until = *answered.borrow() + 50;
                if is_slow {
                    let _ = answered.subscribe().wait_for(|answered| *answered >= until).await;
                }
                call.echo().await;
                answered.send_modify(|answered| *answered += i32::from(!is_slow));
            }
        })
    });
    let all = [one.await, two.await, slow.await];
    let pillion = Pillion::start("", all.each_ref().map(|b| b.as_endpoint("orders"))).await;
    let flow = Flow::start(&pillion, "orders").await;
    soon("300 answers", answered.subscribe().wait_for(|answered| *answered >= 300)).await.unwrap();
    let calls = all.each_ref().map(|backend| backend.counts().calls);
    println!("{calls:?}, the last one is slow");
    assert!(calls[2] * 5 < calls[0] + calls[1], "{calls:?}, the last one is slow");
    // Calls that the slow one still has are answered, too.
    let hurry = async {
        loop {
            answered.send_modify(|answered| *answered += 50);
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = flow.end() => {}
        () = hurry => {}
    }
}
