//! What every test starts with: an etcd, and a program that registers in it.

use std::time::{Duration, Instant};

use etcd_client::{Client, EventType, KeyValue, WatchOptions};
use serde_json::Value;

use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::wait::until;

/// What others dial.
pub(crate) const ADDRESS: &str = "10.0.0.5:9000";
/// Where the record is.
pub(crate) const KEY: &str = "pay/node-1";
/// The shortest that etcd grants, so that nothing takes long.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// Within which a registration is back, once it can be: what is promised, and a busy machine's share.
pub(crate) const IN_TIME: Duration = Duration::from_secs(6);

/// A source of these members, with further keys in TOML.
pub(crate) fn source(urls: &[String], keys: &str) -> String {
    format!("[[source]]\nformat = \"etcd-naming\"\nendpoints = {urls:?}\n{keys}\n")
}

/// A registration of [`ADDRESS`] that is healthy, with further keys in TOML.
pub(crate) fn register(keys: &str) -> String {
    format!(
        "[[register]]\nservice = \"pay\"\naddress = \"{ADDRESS}\"\nid = \"node-1\"\nttl = \
         \"2s\"\nhealth = {{ kind = \"none\" }}\n{keys}\n"
    )
}

/// A program that has registered.
pub(crate) async fn registered(etcd: &Etcd) -> Pillion {
    let pillion = Program::new(&(source(&[etcd.url()], "") + &register(""))).start().await;
    until_state(&pillion, "registered").await;
    pillion
}

/// What the program says of its registration.
pub(crate) async fn report(pillion: &Pillion) -> Value {
    pillion.get("/registrations/pay").await.json()
}

pub(crate) async fn state(pillion: &Pillion) -> String {
    report(pillion).await["state"].as_str().unwrap_or_default().to_owned()
}

pub(crate) async fn until_state(pillion: &Pillion, expected: &str) {
    until(&format!("it is {expected}"), async || state(pillion).await == expected).await;
}

/// A key, as it is in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) lease: i64,
    pub(crate) modified: i64,
}

impl From<&KeyValue> for Record {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: kv.key_str().unwrap().to_owned(),
            value: kv.value_str().unwrap().to_owned(),
            lease: kv.lease(),
            modified: kv.mod_revision(),
        }
    }
}

impl Record {
    /// Whether it is ours and will not stay for ever.
    pub(crate) fn is_ours(&self) -> bool {
        self.value.contains(ADDRESS) && self.lease != 0
    }
}

/// The record, as it is in etcd.
pub(crate) async fn record(etcd: &Etcd) -> Option<Record> {
    record_by(&mut etcd.client().await).await
}

pub(crate) async fn record_by(client: &mut Client) -> Option<Record> {
    client.get(KEY, None).await.ok()?.kvs().first().map(Record::from)
}

/// Waits until our record is there, and checks that it took no longer than is promised.
pub(crate) async fn back_in_time(etcd: &Etcd, what: &str) {
    let (began, mut client) = (Instant::now(), etcd.client().await);
    until(&format!("it is back after {what}"), async || {
        record_by(&mut client).await.is_some_and(|record| record.is_ours())
    })
    .await;
    assert!(began.elapsed() < IN_TIME, "{:?} after {what}", began.elapsed());
}

/// Everything that has happened below `pay/` since the beginning: what was put, none for a delete.
pub(crate) async fn history(mut client: Client) -> Vec<Option<Record>> {
    let now = client.get("\0", None).await.unwrap().header().unwrap().revision();
    // A watch without a key is one of all keys, and this one comes to its end at this put.
    let end = client.put("pay0", "end", None).await.unwrap().header().unwrap().revision();
    assert!(end > now);
    let options = WatchOptions::new().with_start_revision(1).with_range("pay1");
    let mut watch = client.watch("pay/", Some(options)).await.unwrap();
    let mut events = Vec::new();
    while let Some(response) = watch.message().await.unwrap() {
        assert!(!response.canceled(), "{response:?}");
        for event in response.events() {
            let kv = event.kv().unwrap();
            if kv.mod_revision() == end {
                return events;
            }
            events.push((event.event_type() == EventType::Put).then(|| Record::from(kv)));
        }
    }
    panic!("the watch has ended");
}

/// Checks that our address was never there without a lease, and no other key was ever written.
pub(crate) async fn was_never_without_a_lease(etcd: &Etcd) {
    for record in history(etcd.client().await).await.into_iter().flatten() {
        assert!(!record.value.contains(ADDRESS) || record.lease != 0, "{record:?}");
        assert_eq!(record.key, KEY);
    }
}
