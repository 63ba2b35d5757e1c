//! Leases, conditional writes and the watch on one key, against a real etcd.

use std::time::Duration;

use pillion::config::EtcdSource;
use pillion::registry::etcd::{Expect, LeaseId, Member, Members};

use crate::etcd::Etcd;
use crate::wait::soon;

async fn member(etcd: &Etcd) -> Member {
    let source = EtcdSource { endpoints: vec![etcd.url()], ..EtcdSource::default() };
    Members::new(source).connect().await.unwrap().0
}

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_lease_holds_its_keys_until_it_is_revoked() {
    let etcd = Etcd::start().await;
    let member = member(&etcd).await;
    let lease = member.grant(Duration::from_millis(58_100)).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(59), "rounded up");
    member.put(b"k", b"v", Some(lease.id)).await.unwrap();
    assert!(member.keep_alive(lease.id).await.unwrap());
    let (left, granted) = member.time_left(lease.id).await.unwrap().unwrap();
    assert!(granted == lease.ttl && left >= granted - Duration::from_secs(1), "{left:?}");
    let (kv, _) = member.get(b"k").await.unwrap();
    assert_eq!(kv.unwrap().lease, lease.id.get());
    member.revoke(lease.id).await.unwrap();
    assert_eq!(member.get(b"k").await.unwrap().0, None);
    member.revoke(lease.id).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_gone_is_told_and_takes_no_key() {
    let etcd = Etcd::start().await;
    let member = member(&etcd).await;
    let gone = LeaseId::of(7_587_870_000_000_000).unwrap();
    assert!(!member.keep_alive(gone).await.unwrap());
    assert_eq!(member.time_left(gone).await.unwrap(), None);
    assert!(member.put(b"k", b"v", Some(gone)).await.unwrap_err().is_lease_gone());
    let refused = member.put_if(b"k", b"v", gone, Expect::Absent).await.unwrap_err();
    assert!(refused.is_lease_gone(), "{refused}");
    assert_eq!(member.get(b"k").await.unwrap().0, None);
}

#[tokio::test]
async fn a_key_is_written_and_deleted_only_as_expected() {
    let etcd = Etcd::start().await;
    let member = member(&etcd).await;
    let lease = member.grant(TTL).await.unwrap().id;
    let first = member.put_if(b"k", b"1", lease, Expect::Absent).await.unwrap().unwrap();
    assert_eq!(member.put_if(b"k", b"2", lease, Expect::Absent).await.unwrap(), None);
    let second = member.put_if(b"k", b"2", lease, Expect::Modified(first)).await.unwrap().unwrap();
    assert_eq!(member.delete_if(b"k", Expect::Modified(first)).await.unwrap(), None);
    let (kv, revision) = member.get(b"k").await.unwrap();
    let kv = kv.unwrap();
    assert_eq!((&*kv.value, kv.modified, kv.lease), (&b"2"[..], second, lease.get()));
    assert_eq!(revision, second);
    assert!(member.delete_if(b"k", Expect::Modified(second)).await.unwrap().is_some());
    assert!(!member.delete(b"k").await.unwrap());
}

#[tokio::test]
async fn a_watch_on_a_key_tells_of_it_alone_and_of_its_own_end() {
    let etcd = Etcd::start().await;
    let member = member(&etcd).await;
    let before = member.put(b"k", b"0", None).await.unwrap();
    let mut watch = member.watch_key(b"k", before + 1);
    member.put(b"k0", b"neighbour", None).await.unwrap();
    let put = member.put(b"k", b"1", None).await.unwrap();
    let change = soon("the put", watch.next()).await.unwrap();
    assert_eq!((change.revision, change.kv.unwrap().value), (put, b"1".to_vec()));
    member.delete(b"k").await.unwrap();
    assert_eq!(soon("the delete", watch.next()).await.unwrap().kv, None);
    etcd.compact().await;
    let mut late = member.watch_key(b"k", before);
    let end = soon("its end", late.next()).await.unwrap_err();
    assert!(end.to_string().contains("compacted"), "{end}");
}
