//! Whatever happens in etcd, or to it: the registration is back in time.

use std::time::Duration;

use etcd_client::Client;
use tokio::time::sleep;

use crate::etcd::Etcd;
use crate::program::Program;
use crate::site::{
    ADDRESS, KEY, TTL, back_in_time, history, record, record_by, register, registered, report,
    source, state, until_state, was_never_without_a_lease,
};
use crate::wait::until;

#[tokio::test]
async fn it_is_registered_under_a_lease_that_is_kept_alive_and_gone_with_the_process() {
    let etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    let first = record(&etcd).await.unwrap();
    assert_eq!(first.value, format!(r#"{{"Op":0,"Addr":"{ADDRESS}","Metadata":null}}"#));
    sleep(3 * TTL).await;
    assert_eq!(record(&etcd).await.unwrap(), first, "untouched");
    let report = report(&pillion).await;
    assert_eq!((&report["key"], &report["format"]), (&KEY.into(), &"etcd-naming".into()));
    assert_eq!(report["lease"], format!("{:016x}", first.lease));
    assert_eq!((&report["service"], &report["problem"]), (&"pay".into(), &serde_json::Value::Null));
    assert!(report["confirmed_age_seconds"].as_f64().unwrap() <= 1.5, "{report}");
    let metrics = pillion.metrics().await;
    let labels = [("name", "pay"), ("service", "pay")];
    assert_eq!(metrics.sum("registration_registered", &labels), 1.0);
    assert_eq!(metrics.sum("registration_writes_total", &labels), 1.0);
    assert_eq!(metrics.sum("registration_losses_total", &labels), 0.0);
    drop(pillion);
    until("its lease runs out", async || record(&etcd).await.is_none()).await;
}

#[tokio::test]
async fn it_is_back_after_whatever_somebody_does_to_its_key_or_its_lease() {
    let etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    etcd.delete(KEY).await;
    back_in_time(&etcd, "a delete").await;
    etcd.put(KEY, "garbage").await;
    back_in_time(&etcd, "a put without a lease").await;
    etcd.put_leased(KEY, r#"{"Addr":"10.9.9.9:1"}"#, 600).await;
    back_in_time(&etcd, "a put by another address").await;
    let lease = record(&etcd).await.unwrap().lease;
    etcd.client().await.lease_revoke(lease).await.unwrap();
    back_in_time(&etcd, "a revoked lease").await;
    until_state(&pillion, "registered").await;
    let metrics = pillion.metrics().await;
    let losses = |reason| metrics.sum("registration_losses_total", &[("reason", reason)]);
    assert_eq!(["lease", "deleted", "overwritten"].map(losses), [1.0, 1.0, 2.0]);
    was_never_without_a_lease(&etcd).await;
}

#[tokio::test]
async fn it_is_back_after_etcd_was_killed_frozen_or_emptied() {
    let mut etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    etcd.kill();
    until_state(&pillion, "registering").await;
    etcd.restart().await;
    back_in_time(&etcd, "a crash of etcd").await;
    etcd.freeze();
    until_state(&pillion, "registering").await;
    assert!(!report(&pillion).await["problem"].is_null());
    etcd.thaw();
    back_in_time(&etcd, "a freeze").await;
    until_state(&pillion, "registered").await;
    was_never_without_a_lease(&etcd).await;
    for _ in 0..2 {
        etcd.wipe().await;
        back_in_time(&etcd, "a restart without data").await;
        until_state(&pillion, "registered").await;
    }
    etcd.back_up();
    etcd.restart().await;
    back_in_time(&etcd, "a backup").await;
    etcd.put("x", "1").await;
    etcd.restore().await;
    back_in_time(&etcd, "a restore").await;
    was_never_without_a_lease(&etcd).await;
}

#[tokio::test]
async fn a_lease_that_outlives_a_crash_of_etcd_is_known_again() {
    let mut etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    let before = record(&etcd).await;
    etcd.kill();
    until_state(&pillion, "registering").await;
    // As long as a lease could live that is not kept alive, and longer.
    sleep(2 * TTL).await;
    etcd.restart().await;
    back_in_time(&etcd, "a crash of etcd").await;
    until_state(&pillion, "registered").await;
    assert_eq!(record(&etcd).await, before, "untouched");
    let report = report(&pillion).await;
    assert_eq!((&report["problem"], &report["writes"]), (&serde_json::Value::Null, &1.into()));
}

#[tokio::test]
async fn it_starts_without_etcd_and_registers_once_there_is_one() {
    let mut etcd = Etcd::stopped();
    let config = source(&[etcd.url()], "") + &register("");
    let pillion = Program::new(&config).start_unready().await;
    until("it says why not", async || !report(&pillion).await["problem"].is_null()).await;
    assert_eq!(state(&pillion).await, "registering");
    etcd.restart().await;
    back_in_time(&etcd, "the start of etcd").await;
}

#[tokio::test]
async fn it_never_goes_while_two_of_three_members_are_well() {
    let mut members = Etcd::cluster(&[]).await;
    let urls: Vec<String> = members.iter().map(Etcd::url).collect();
    let config = source(&urls, "") + &register("").replace("\"2s\"", "\"9s\"");
    let pillion = Program::new(&config).start().await;
    until_state(&pillion, "registered").await;
    let longer = Duration::from_secs(10);
    for member in &members[..2] {
        member.freeze();
        sleep(longer).await;
        member.thaw();
        until_state(&pillion, "registered").await;
    }
    members[2].kill();
    sleep(longer).await;
    members[2].restart().await;
    let mut client = Client::connect(&urls, None).await.unwrap();
    assert!(record_by(&mut client).await.is_some_and(|record| record.is_ours()));
    let history = history(client).await;
    assert!(history.iter().all(Option::is_some), "it was deleted: {history:?}");
}
