//! What an operator or a new configuration changes while it is registered.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::site::{
    IN_TIME, KEY, back_in_time, history, record, register, registered, report, source, state,
    until_state, was_never_without_a_lease,
};
use crate::wait::until;

async fn change(pillion: &Pillion, body: &str) -> (u16, serde_json::Value) {
    let page = pillion.ask_with("PUT", "/registrations/pay", body).await;
    (page.status, page.json())
}

async fn value(etcd: &Etcd) -> String {
    record(etcd).await.unwrap().value
}

#[tokio::test]
async fn a_change_is_in_etcd_when_it_is_answered_and_stays_after_a_loss() {
    let etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    let began = Instant::now();
    let (status, now) = change(&pillion, r#"{"weight": 7, "metadata": {"gpu": true}}"#).await;
    assert_eq!(
        (status, &now["weight"], &now["metadata"]),
        (200, &json!(7), &json!({"gpu": "true"}))
    );
    let expected = r#""Metadata":{"gpu":"true","weight":"7"}"#;
    assert!(value(&etcd).await.contains(expected), "{}", value(&etcd).await);
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    let (status, now) = change(&pillion, r#"{"version": "v2"}"#).await;
    assert_eq!((status, &now["weight"], &now["version"]), (200, &json!(7), &json!("v2")));
    etcd.delete(KEY).await;
    back_in_time(&etcd, "a delete").await;
    let expected = r#""Metadata":{"gpu":"true","version":"v2","weight":"7"}"#;
    assert!(value(&etcd).await.contains(expected), "{}", value(&etcd).await);
    was_never_without_a_lease(&etcd).await;
}

#[tokio::test]
async fn a_change_that_cannot_be_says_why_and_changes_nothing() {
    let etcd = Etcd::start().await;
    let pillion = registered(&etcd).await;
    let (status, answer) = change(&pillion, r#"{"wait": 7}"#).await;
    assert_eq!(status, 400);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("unknown key \"wait\"; allowed: a JSON object with any of"),
        "{error}"
    );
    let (status, answer) = change(&pillion, r#"{"metadata": {"zone": "a"}}"#).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("etcd-naming cannot hold"), "{answer}");
    let page = pillion.ask_with("PUT", "/registrations/pays", r#"{"weight": 7}"#).await;
    let expected = "there is no registration \"pays\"; there are: pay";
    assert_eq!((page.status, &page.json()["error"]), (404, &json!(expected)));
    assert_eq!(pillion.get("/registrations/pays").await.status, 404);
    assert_eq!(pillion.ask("POST", "/registrations/pay").await.status, 405);
    let long = format!(r#"{{"version": "{}"}}"#, "x".repeat(70_000));
    assert_eq!(change(&pillion, &long).await.0, 400);
    assert_eq!(report(&pillion).await["writes"], 1);
    etcd.freeze();
    let (status, answer) = change(&pillion, r#"{"weight": 7}"#).await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().starts_with("not in etcd yet"), "{answer}");
    etcd.thaw();
    until("it is written later", async || {
        record(&etcd).await.is_some_and(|record| record.value.contains(r#""weight":"7""#))
    })
    .await;
}

#[tokio::test]
async fn a_change_of_one_that_is_not_healthy_is_kept_for_later() {
    let etcd = Etcd::start().await;
    let register = register("").replace("\"none\"", "\"tcp\", target = \"127.0.0.1:1\"");
    let pillion = Program::new(&(source(&[etcd.url()], "") + &register)).start().await;
    let (status, now) = change(&pillion, r#"{"weight": 7}"#).await;
    assert_eq!((status, &now["weight"]), (202, &json!(7)));
    assert!(["starting", "unhealthy"].contains(&&*state(&pillion).await));
    assert_eq!(record(&etcd).await, None);
}

#[tokio::test]
async fn a_new_configuration_changes_what_it_changes_and_touches_nothing_else() {
    let etcd = Etcd::start().await;
    let source = source(&[etcd.url()], "");
    let other = register("").replace("pay", "shop");
    let pillion = Program::new(&format!("{source}{}{other}", register(""))).start().await;
    until_state(&pillion, "registered").await;
    let (status, _) = change(&pillion, r#"{"weight": 7}"#).await;
    assert_eq!(status, 200);
    let before = record(&etcd).await.unwrap();

    // The other one goes, and ours is not touched: what an operator has changed stays.
    pillion.set_whole_config(&format!("{source}{}", register("")));
    until("the other one is gone", async || {
        etcd.client().await.get("shop/node-1", None).await.unwrap().kvs().is_empty()
    })
    .await;
    assert_eq!(record(&etcd).await.unwrap(), before);

    // It says something else: under the same lease, and soon.
    pillion.set_whole_config(&format!("{source}{}", register("weight = 3")));
    let began = Instant::now();
    until("the weight is there", async || value(&etcd).await.contains(r#""weight":"3""#)).await;
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    assert_eq!(record(&etcd).await.unwrap().lease, before.lease);

    // Another lease, another address: the key is never gone in between.
    let moved = register("").replace("\"2s\"", "\"3s\"").replace("10.0.0.5:9000", "10.0.0.5:9001");
    pillion.set_whole_config(&format!("{source}{moved}"));
    until("the address is there", async || value(&etcd).await.contains("10.0.0.5:9001")).await;
    until_state(&pillion, "registered").await;
    pillion.set_whole_config(&format!("{source}{moved}{other}"));
    until("the other one is there", async || {
        !etcd.client().await.get("shop/node-1", None).await.unwrap().kvs().is_empty()
    })
    .await;
    let history = history(etcd.client().await).await;
    assert!(history.iter().all(Option::is_some), "{history:?}");

    // A file with a mistake changes nothing.
    pillion.set_whole_config("[[register]]");
    pillion.signal(Signal::HUP);
    until("the mistake is told", async || pillion.log().contains("not reloaded")).await;
    assert_eq!(state(&pillion).await, "registered");
}
