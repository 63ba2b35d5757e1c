//! `pillion registry copy`: records of one framework as those of another, against a real etcd.

use serde_json::Value;

use crate::etcd::Etcd;
use crate::running::{Running, until};
use crate::{Outcome, pillion};

const KRATOS: &str = "prefix=/ms,format=kratos";
const ZERO: &str = "prefix=/zero,format=go-zero";

fn copy(etcd: &Etcd, args: &[&str]) -> Outcome {
    let url = etcd.url();
    pillion(&[&["registry", "copy", "--etcd", &url], args].concat())
}

fn follow(from: &Etcd, from_text: &str, to: &Etcd, to_text: &str, more: &[&str]) -> Running {
    let from = format!("etcd={},{from_text}", from.url());
    let to = format!("etcd={},{to_text}", to.url());
    let args = ["registry", "copy", "--follow", "--ttl", "2s", "--from", &from, "--to", &to];
    Running::start(&[&args[..], more].concat())
}

fn instance(id: &str, address: &str, more: &str) -> String {
    format!(r#"{{"id":"{id}","name":"hello","endpoints":["grpc://{address}"]{more}}}"#)
}

/// Puts a record as kratos does, under a lease of its own.
async fn kratos(etcd: &Etcd, id: &str, address: &str) {
    etcd.put_leased(&format!("/ms/hello/{id}"), &instance(id, address, ""), 6000).await;
}

/// Values below a prefix by key, with their leases.
async fn read(etcd: &Etcd, prefix: &str) -> Vec<(String, String, i64)> {
    let options = etcd_client::GetOptions::new().with_prefix();
    let answer = etcd.client().await.get(prefix, Some(options)).await.unwrap();
    let kv = |kv: &etcd_client::KeyValue| {
        (kv.key_str().unwrap().to_owned(), kv.value_str().unwrap().to_owned(), kv.lease())
    };
    answer.kvs().iter().map(kv).collect()
}

/// Waits until the values below a prefix are these, in whatever order.
async fn until_values(etcd: &Etcd, prefix: &str, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    until(&format!("below {prefix} is {expected:?}"), async || {
        let mut values: Vec<_> = read(etcd, prefix).await.into_iter().map(|kv| kv.1).collect();
        values.sort();
        values == expected
    })
    .await;
}

#[tokio::test]
async fn a_single_copy_says_what_it_writes_what_it_leaves_out_and_what_is_lost() {
    let etcd = Etcd::start().await;
    let labels = r#","version":"v1","metadata":{"weight":"7"}"#;
    etcd.put("/ms/hello/a", &instance("a", "10.0.0.1:9000", labels)).await;
    etcd.put("/ms/hello/b", &instance("b", "10.0.0.2:9000", r#","metadata":{"weight":"0"}"#)).await;
    etcd.put("/ms/hello/c", "{}").await;
    let (key, value) = ("/naming/hello/a", "10.0.0.1:9000");
    let to = ["--from", KRATOS, "--to", ZERO];

    let outcome = copy(&etcd, &[&to[..], &["--dry-run"]].concat());
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[1].starts_with("hello    10.0.0.1:9000  /ms/hello/a  /zero/hello/"), "{lines:?}");
    assert!(lines[1].ends_with("  without weight 7, version v1"), "{lines:?}");
    assert!(lines[4].contains("/ms/hello/c  it cannot be read"), "{lines:?}");
    assert!(lines[5].ends_with("/ms/hello/b  format go-zero cannot hold weight 0"), "{lines:?}");
    assert_eq!(*lines.last().unwrap(), "nothing is written: --dry-run");
    assert_eq!(read(&etcd, "/zero/").await, []);

    let outcome = copy(&etcd, &[&to[..], &["--ttl", "60s", "-o", "json"]].concat());
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let copies = read(&etcd, "/zero/").await;
    assert_eq!((copies.len(), &*copies[0].1), (1, value));
    assert_eq!(report["copies"][0]["key"], *copies[0].0);
    assert_eq!(report["lease"], format!("{:016x}", copies[0].2));
    assert_eq!(report["left_out"].as_array().unwrap().len(), 2);

    // All that a record says arrives where it can be said; and what is there is left alone.
    let to = ["--from", KRATOS, "--to", "prefix=/naming,format=etcd-naming", "--permanent"];
    assert_eq!(copy(&etcd, &to).status, 0);
    let copied = read(&etcd, key).await.remove(0);
    let value = r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":{"version":"v1","weight":"7"}}"#;
    assert_eq!((&*copied.1, copied.2), (value, 0));
    let outcome = copy(&etcd, &to);
    assert!(outcome.stdout.contains("it is registered there already, at /naming/hello/a"));
}

#[tokio::test]
async fn a_copy_needs_a_written_format_another_place_and_a_word_on_how_long_it_stays() {
    let etcd = Etcd::start().await;
    for (args, expected) in [
        (&["--to", "prefix=/x"][..], "--to has format auto; it must be one of etcd-naming, "),
        (&["--to", ZERO], "how long shall the copies stay? give --follow"),
        (&["--from", ZERO, "--to", ZERO, "--follow"], "--from and --to are the same place"),
        (&["--to", "prefx=/x"], "--to: \"prefx\" is unknown; allowed: source, etcd, prefix"),
        (&["--to", "main"], "source \"main\" is one of a configuration: give -c FILE too"),
        (&["--to", "format=kola"], "there is no format \"kola\""),
        (&["--to", ZERO, "--service", "a/b"], "\"a/b\": the service name holds '/'"),
        (
            &["--to", ZERO, "--service", "a:x", "--service", "b:x"],
            "two services would be copied to x",
        ),
        (&["--to", ZERO, "--follow", "--permanent"], "cannot be used with"),
    ] {
        let outcome = copy(&etcd, args);
        assert_eq!((outcome.status, &*outcome.stdout), (2, ""), "{args:?}");
        assert!(outcome.stderr.contains(expected), "{args:?}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn two_mirrors_there_and_back_follow_changes_and_never_copy_each_others_copies() {
    let etcd = Etcd::start().await;
    kratos(&etcd, "a", "10.0.0.1:9000").await;
    let there = follow(&etcd, KRATOS, &etcd, ZERO, &[]);
    let back = follow(&etcd, ZERO, &etcd, KRATOS, &[]);
    until_values(&etcd, "/zero/", &["10.0.0.1:9000"]).await;

    // What registers, moves and goes on either side does so on the other.
    kratos(&etcd, "b", "10.0.0.2:9000").await;
    etcd.put_leased("/zero/hello/77", "10.0.0.7:9000", 6000).await;
    until_values(&etcd, "/zero/", &["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.7:9000"]).await;
    until("it is copied back", async || read(&etcd, "/ms/").await.len() == 3).await;
    kratos(&etcd, "b", "10.0.0.3:9000").await;
    until_values(&etcd, "/zero/", &["10.0.0.1:9000", "10.0.0.3:9000", "10.0.0.7:9000"]).await;
    etcd.delete("/ms/hello/a").await;
    etcd.delete("/zero/hello/77").await;
    // Were a copy taken for an original, it would keep the other alive for ever.
    until_values(&etcd, "/zero/", &["10.0.0.3:9000"]).await;
    until("the copy is gone there, too", async || read(&etcd, "/ms/").await.len() == 1).await;

    assert_eq!(there.interrupt().await, 0);
    assert_eq!(back.interrupt().await, 0);
    until_values(&etcd, "/zero/", &[]).await;
    assert_eq!(read(&etcd, "/ms/").await.len(), 1);
}

#[tokio::test]
async fn a_mirror_puts_everything_again_when_its_lease_is_lost_or_etcd_comes_back_empty() {
    let (from, mut to) = (Etcd::start().await, Etcd::start().await);
    kratos(&from, "a", "10.0.0.1:9000").await;
    kratos(&from, "b", "10.0.0.2:9000").await;
    let both = ["10.0.0.1:9000", "10.0.0.2:9000"];
    let mut mirror = follow(&from, KRATOS, &to, ZERO, &["-o", "json"]);
    until_values(&to, "/zero/", &both).await;
    let lease = read(&to, "/zero/").await[0].2;
    to.client().await.lease_revoke(lease).await.unwrap();
    until_values(&to, "/zero/", &both).await;
    assert_ne!(read(&to, "/zero/").await[0].2, lease);

    let mut empty = Etcd::stopped();
    to.kill();
    mirror.says("trying on, copies stay meanwhile").await;
    empty.take_over(&to).await;
    until_values(&empty, "/zero/", &both).await;
    // What has changed while it was away arrives as well.
    kratos(&from, "c", "10.0.0.3:9000").await;
    until_values(&empty, "/zero/", &[both[0], both[1], "10.0.0.3:9000"]).await;
    let line: Value = serde_json::from_str(&mirror.line().await).unwrap();
    assert_eq!((&line["event"], &line["service"]), (&"put".into(), &"hello".into()));
}

#[tokio::test]
async fn copies_stay_while_the_side_of_the_originals_is_away_and_follow_when_it_is_back() {
    let (mut from, to) = (Etcd::start().await, Etcd::start().await);
    kratos(&from, "a", "10.0.0.1:9000").await;
    let mut mirror = follow(&from, KRATOS, &to, ZERO, &[]);
    until_values(&to, "/zero/", &["10.0.0.1:9000"]).await;
    from.kill();
    mirror.says("trying on, copies stay meanwhile").await;
    // Longer than their lease would live by itself.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    until_values(&to, "/zero/", &["10.0.0.1:9000"]).await;
    from.restart().await;
    from.delete("/ms/hello/a").await;
    until_values(&to, "/zero/", &[]).await;
}

#[tokio::test]
async fn keys_of_others_are_left_alone_and_a_bad_record_stops_nothing() {
    let etcd = Etcd::start().await;
    etcd.put("/ms/hello/bad", "{").await;
    kratos(&etcd, "a", "10.0.0.1:9000").await;
    kratos(&etcd, "b", "10.0.0.2:9000").await;
    etcd.put("/zero/hello/1", "10.0.0.1:9000").await;
    etcd.put("/zero/hello/2", "10.0.0.99:9000").await;
    let all = ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.99:9000"];
    let mut mirror = follow(&etcd, KRATOS, &etcd, ZERO, &[]);
    mirror.line_with("! hello /ms/hello/bad left out: it cannot be read").await;
    until_values(&etcd, "/zero/", &all).await;
    // A good value that turns bad stays in force.
    etcd.put("/ms/hello/b", "{").await;
    kratos(&etcd, "c", "10.0.0.3:9000").await;
    until_values(&etcd, "/zero/", &[all[0], all[1], "10.0.0.3:9000", all[2]]).await;
    assert_eq!(mirror.interrupt().await, 0);
    until_values(&etcd, "/zero/", &[all[0], all[2]]).await;
}

#[tokio::test]
async fn a_second_mirror_takes_over_when_the_first_one_dies() {
    let etcd = Etcd::start().await;
    kratos(&etcd, "a", "10.0.0.1:9000").await;
    let first = follow(&etcd, KRATOS, &etcd, ZERO, &[]);
    until_values(&etcd, "/zero/", &["10.0.0.1:9000"]).await;
    let copy = read(&etcd, "/zero/").await;
    let mut second = follow(&etcd, KRATOS, &etcd, ZERO, &[]);
    second.line_with("left out: another mirror keeps a copy").await;
    // Killed: nobody ends its lease.
    drop(first);
    second.line_with("+ hello 10.0.0.1:9000").await;
    let taken_over = read(&etcd, "/zero/").await;
    assert_eq!(taken_over[0].0, copy[0].0);
    assert_ne!(taken_over[0].2, copy[0].2);
}

#[tokio::test]
async fn only_the_services_asked_for_are_copied_under_the_names_asked_for() {
    let etcd = Etcd::start().await;
    kratos(&etcd, "a", "10.0.0.1:9000").await;
    etcd.put("/ms/other/1", &instance("1", "10.0.0.9:9000", "").replace("hello", "other")).await;
    let mirror = follow(&etcd, KRATOS, &etcd, ZERO, &["--service", "hello:hello.rpc"]);
    until_values(&etcd, "/zero/", &["10.0.0.1:9000"]).await;
    assert!(read(&etcd, "/zero/").await[0].0.starts_with("/zero/hello.rpc/"));
    assert_eq!(mirror.interrupt().await, 0);
}
