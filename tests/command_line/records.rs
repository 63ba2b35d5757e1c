//! `pillion registry put` and `rm`: what they write, what they leave alone, and what they say.

use crate::etcd::Etcd;
use crate::running::{Running, until};
use crate::{Outcome, pillion};

fn registry(etcd: &Etcd, args: &[&str]) -> Outcome {
    let url = etcd.url();
    pillion(&[&["registry"], args, &["--etcd", &url]].concat())
}

/// Value and lease of a key.
async fn read(etcd: &Etcd, key: &str) -> Option<(String, i64)> {
    let answer = etcd.client().await.get(key, None).await.unwrap();
    let kv = answer.kvs().first()?;
    Some((kv.value_str().unwrap().to_owned(), kv.lease()))
}

#[tokio::test]
async fn put_writes_as_the_framework_does_and_says_that_the_key_stays() {
    let etcd = Etcd::start().await;
    let put = |more: &[&str]| {
        let args = ["put", "orders", "10.0.0.5:9000", "--format", "kratos", "--prefix", "/m"];
        let flags = ["--id", "o-1", "--weight", "7", "--version", "v2", "--meta", "gpu=1"];
        registry(&etcd, &[&args[..], &flags, more].concat())
    };
    let value = r#"{"id":"o-1","name":"orders","version":"v2","metadata":{"gpu":"1","weight":"7"},"endpoints":["grpc://10.0.0.5:9000"]}"#;
    let outcome = put(&["--dry-run"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert!(outcome.stdout.starts_with("would write\nkey    /m/orders/o-1\n"));
    assert_eq!(read(&etcd, "/m/orders/o-1").await, None);

    let outcome = put(&[]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let stays = "lease  none: the key stays until somebody deletes it";
    assert_eq!(outcome.stdout, format!("key    /m/orders/o-1\nvalue  {value}\n{stays}\n"));
    assert_eq!(read(&etcd, "/m/orders/o-1").await, Some((value.to_owned(), 0)));

    // A key that is there is left alone unless it is said.
    let outcome = put(&["--ttl", "60s"]);
    assert_eq!((outcome.status, &*outcome.stdout), (1, ""));
    assert!(outcome.stderr.contains("/m/orders/o-1 is there already, under no lease; --replace"));
    assert_eq!(put(&["--ttl", "60s", "--replace"]).status, 0);
    assert_ne!(read(&etcd, "/m/orders/o-1").await.unwrap().1, 0);
}

#[tokio::test]
async fn put_needs_a_format_that_can_be_written_and_a_lease_where_the_key_is_named_after_it() {
    let etcd = Etcd::start().await;
    for (flags, expected) in [
        (&[][..], "format auto is only read; --format takes one of etcd-naming, "),
        (&["--format", "go-zero"], "format go-zero names its keys after the lease: give --ttl"),
        (&["--format", "go-zero", "--weight", "0", "--ttl", "9s"], "cannot hold weight 0"),
        (&["--format", "koala", "--keep"], "--ttl <DURATION>"),
        (&["--format", "koala", "--meta", "gpu"], "\"gpu\" is not KEY=VALUE"),
    ] {
        let outcome = registry(&etcd, &[&["put", "orders", "10.0.0.5:9000"], flags].concat());
        assert_eq!((outcome.status, &*outcome.stdout), (2, ""), "{flags:?}");
        assert!(outcome.stderr.contains(expected), "{flags:?}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn put_keep_holds_its_key_through_the_loss_of_its_lease_and_of_all_data_and_takes_it_away() {
    let mut etcd = Etcd::start().await;
    let url = etcd.url();
    let flags = ["--format", "go-zero", "--ttl", "2s", "--keep", "--etcd", &url];
    let args =
        [&["registry", "put", "orders", "10.0.0.5:9000", "--version", "v1"], &flags[..]].concat();
    let mut put = Running::start(&args);
    let key = put.line_with("key    ").await.replace("key    ", "");
    assert_eq!(put.line_with("note   ").await, "note   the format does not say version v1");
    let (value, lease) = read(&etcd, &key).await.unwrap();
    assert_eq!((&*value, format!("orders/{lease}")), ("10.0.0.5:9000", key));
    etcd.client().await.lease_revoke(lease).await.unwrap();
    put.line_with("written again, after a loss").await;
    let again = put.line_with("key    ").await.replace("key    ", "");
    assert!(read(&etcd, &again).await.is_some());

    // An empty etcd takes the place of the one that was there.
    let mut empty = Etcd::stopped();
    etcd.kill();
    empty.take_over(&etcd).await;
    put.line_with("written again, after a loss").await;
    let key = put.line_with("key    ").await.replace("key    ", "");
    assert!(read(&empty, &key).await.is_some());
    assert_eq!(put.interrupt().await, 0);
    until("the key is gone", async || read(&empty, &key).await.is_none()).await;
}

#[tokio::test]
async fn rm_deletes_what_it_shows_and_several_only_when_told_to() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", "10.0.0.1:80").await;
    etcd.put("orders/2", "10.0.0.1:80").await;
    etcd.put("orders/3", "10.0.0.3:80").await;
    etcd.put("orders/4", "nonsense").await;
    let outcome = registry(&etcd, &["rm", "orders", "10.0.0.1:80"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("nothing is deleted: these are 2 keys, give --all too"));
    assert!(outcome.stdout.contains("orders/1") && outcome.stdout.contains("orders/2"));
    let outcome = registry(&etcd, &["rm", "orders", "3", "--dry-run"]);
    assert_eq!(outcome.status, 0);
    assert!(read(&etcd, "orders/3").await.is_some());

    let outcome = registry(&etcd, &["rm", "orders", "3"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout,
        "KEY       ADDRESS      ID  FORMAT   LEASE\n\
         orders/3  10.0.0.3:80   3  go-zero  none\n\
         deleted 1\n"
    );
    assert_eq!(read(&etcd, "orders/3").await, None);
    assert_eq!(registry(&etcd, &["rm", "--key", "orders/4"]).status, 0);
    assert_eq!(registry(&etcd, &["rm", "orders", "--all"]).status, 0);
    assert_eq!(etcd.client().await.get("\0", None).await.unwrap().count(), 0);

    let outcome = registry(&etcd, &["rm", "orders", "3"]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("service orders has no key below \"orders/\""));
}

#[tokio::test]
async fn rm_of_a_key_with_several_endpoints_says_so_and_needs_all() {
    let etcd = Etcd::start().await;
    let nodes =
        r#"{"name":"hello","nodes":[{"ip":"10.0.0.1","port":80},{"ip":"10.0.0.2","port":80}]}"#;
    etcd.put("hello/both", nodes).await;
    let outcome = registry(&etcd, &["rm", "hello", "10.0.0.1:80"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("the key holds 1 more, give --all too"));
    assert_eq!(registry(&etcd, &["rm", "hello", "10.0.0.1:80", "--all"]).status, 0);
}

#[tokio::test]
async fn rm_says_when_an_owner_that_lives_puts_its_key_back() {
    let etcd = Etcd::start().await;
    etcd.put_leased("orders/1", "10.0.0.1:80", 6000).await;
    let outcome = registry(&etcd, &["rm", "orders", "1"]);
    assert_eq!(outcome.status, 0);
    let warning = "orders/1: a go-zero process that lives puts its key back at once";
    assert!(outcome.stdout.contains(warning), "{}", outcome.stdout);
}

#[tokio::test]
async fn rm_leaves_keys_alone_that_belong_to_no_service_of_the_prefix() {
    let etcd = Etcd::start().await;
    etcd.put("/elsewhere/orders/1", "10.0.0.1:80").await;
    let outcome = registry(&etcd, &["rm", "--prefix", "/x", "--key", "/elsewhere/orders/1"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("belongs to no service below the prefix \"/x/\""));
    assert!(read(&etcd, "/elsewhere/orders/1").await.is_some());
}
