//! Two programs, one key.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::etcd::Etcd;
use crate::program::Program;
use crate::site::{history, record, register, registered, report, source, state, until_state};
use crate::wait::until;

#[tokio::test]
async fn a_rolling_restart_leaves_no_gap_whichever_of_the_two_goes() {
    let etcd = Etcd::start().await;
    let mut old = registered(&etcd).await;
    let new = registered(&etcd).await;
    until_state(&old, "shared").await;
    old.signal(Signal::TERM);
    assert!(old.ended().await.success());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(state(&new).await, "registered");
    let newest = registered(&etcd).await;
    until_state(&new, "shared").await;
    // As if killed: its lease would run out.
    drop(newest);
    until_state(&new, "registered").await;
    sleep(Duration::from_secs(3)).await;
    assert!(record(&etcd).await.is_some_and(|record| record.is_ours()));
    let history = history(etcd.client().await).await;
    assert!(history.iter().all(Option::is_some), "{history:?}");
    assert!(history.len() <= 4, "nobody answers the other: {history:?}");
}

#[tokio::test]
async fn two_hosts_with_one_id_do_not_fight_and_both_say_it() {
    let etcd = Etcd::start().await;
    let one = registered(&etcd).await;
    let config = source(&[etcd.url()], "") + &register("").replace("0.5:9000", "0.6:9000");
    let other = Program::new(&config).start().await;
    sleep(Duration::from_secs(10)).await;
    let writes = report(&one).await["writes"].as_u64().unwrap()
        + report(&other).await["writes"].as_u64().unwrap();
    assert!((2..=12).contains(&writes), "{writes}");
    until("one of them is contested", async || {
        let (one, other) = (report(&one).await, report(&other).await);
        [one, other].iter().any(|report| {
            let problem = report["problem"].as_str().unwrap_or_default();
            report["state"] == "contested" && problem.contains("two hosts with one id?")
        })
    })
    .await;
}
