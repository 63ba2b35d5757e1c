//! A cluster of three, of which some are gone.

use std::time::Duration;

use crate::backend::Backend;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::{Pillion, Program};
use crate::scene::{age, backends, key, until_ready, value};
use crate::wait::until;

async fn proxy_of(members: &[Etcd]) -> Pillion {
    let urls = members.iter().map(|member| format!("{:?}", member.url())).collect::<Vec<_>>();
    Program::new(&format!("[[source]]\nendpoints = [{}]\n", urls.join(", "))).start().await
}

/// Whom of them the proxy has connected last.
fn connected(pillion: &Pillion, members: &[Etcd]) -> usize {
    let log = pillion.log();
    let line = log.lines().rfind(|line| line.contains("connected to etcd")).unwrap();
    members.iter().position(|member| line.contains(&member.url())).unwrap()
}

async fn until_joined(etcd: &Etcd) -> Backend {
    let backend = Backend::echo().await;
    let mut client = etcd.client().await;
    until("there is a leader that takes the new endpoint", async || {
        let (key, value) = (key(backend.address()), value(backend.address()));
        client.put(key, value, None).await.is_ok()
    })
    .await;
    until("the new endpoint is called", async || backend.counts().calls > 0).await;
    backend
}

#[tokio::test]
async fn a_member_that_is_dead_for_good_is_passed_over() {
    let mut members = Etcd::cluster(&[]).await;
    let _backends = backends(&members[0], 2).await;
    let pillion = proxy_of(&members).await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let mut joined = Vec::new();
    for _ in 0..2 {
        let followed = connected(&pillion, &members);
        members[followed].kill();
        let others = &members[(followed + 1) % 3];
        joined.push(until_joined(others).await);
        until("another is followed", async || connected(&pillion, &members) != followed).await;
        until("it is proved", async || age(&pillion).await < 6.0).await;
        members[followed].restart().await;
    }
    flow.end().await;
}

#[tokio::test]
async fn a_cluster_without_quorum_proves_nothing_and_costs_no_call() {
    let members = Etcd::cluster(&[]).await;
    let _backends = backends(&members[0], 2).await;
    let pillion = proxy_of(&members).await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    let followed = connected(&pillion, &members);
    for (at, member) in members.iter().enumerate() {
        if at != followed {
            member.freeze();
        }
    }
    until("the loss shows", async || pillion.metrics().await.sum("source_up", &[]) == 0.0).await;
    until("it is seen to be old", async || age(&pillion).await > 8.0).await;
    flow.more().await;
    for (at, member) in members.iter().enumerate() {
        if at != followed {
            member.thaw();
        }
    }
    let _third = until_joined(&members[followed]).await;
    until("it is proved again", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}

#[tokio::test]
#[ignore = "most of a minute; `make test-long`"]
async fn a_member_that_believes_itself_leader_of_a_quorum_that_is_gone_proves_nothing() {
    // For as long as a leader may believe that, it answers whatever needs nobody else.
    let members = Etcd::cluster(&["--election-timeout", "20000"]).await;
    let _backends = backends(&members[0], 2).await;
    let urls = format!("{:?}", members[0].url());
    let config = format!("[[source]]\nendpoints = [{urls}]\n");
    let pillion = Program::new(&config).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    members[1].freeze();
    members[2].freeze();
    let frozen = tokio::time::Instant::now();
    until("it is seen to be old", async || age(&pillion).await > 9.0).await;
    assert!(frozen.elapsed() > Duration::from_secs(3));
    members[1].thaw();
    members[2].thaw();
    until("it is proved again", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}
