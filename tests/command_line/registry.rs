//! `pillion registry`: what it reads from, and writes to, a real etcd.

use serde_json::Value;

use crate::etcd::Etcd;
use crate::running::Running;
use crate::{file, pillion, pillion_with};

const ORDERS_1: &str =
    r#"{"Addr":"10.0.0.1:80","Metadata":{"weight":"10","version":"v1","gpu":true}}"#;

/// Two services, three endpoints, one of them under a lease, and a record that is none.
async fn shop() -> Etcd {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", ORDERS_1).await;
    etcd.put_leased("orders/2", "10.0.0.2:80", 6000).await;
    etcd.put("orders/3", "nonsense").await;
    etcd.put("pay/1", "10.0.0.3:80").await;
    etcd.put("loose", "x").await;
    etcd
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn ls_counts_services_and_names_keys_that_belong_to_none() {
    let etcd = shop().await;
    let outcome = pillion(&["registry", "ls", "--etcd", &etcd.url()]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout,
        "SERVICE  ENDPOINTS  REJECTED  FORMATS\n\
         orders           2         1  etcd-naming,go-zero\n\
         pay              1            go-zero\n\
         \n\
         keys that belong to no service: 1, such as loose\n"
    );
    let outcome = pillion(&["registry", "ls", "-o", "json", "--etcd", &etcd.url()]);
    let list = parse(&outcome.stdout);
    assert_eq!(list["services"][0]["endpoints"], 2);
    assert_eq!(list["other_keys"][0], "loose");
}

#[tokio::test]
async fn ls_shows_each_record_of_a_service_with_its_lease_and_why_others_are_rejected() {
    let etcd = shop().await;
    let outcome = pillion(&["registry", "ls", "orders", "--etcd", &etcd.url()]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let lines: Vec<Vec<&str>> =
        outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[1],
        ["10.0.0.1:80", "1", "ready", "10", "v1", "etcd-naming", "none", "orders/1", "gpu=true"]
    );
    assert_eq!(lines[2][..5], ["10.0.0.2:80", "2", "ready", "100", "go-zero"]);
    assert!(lines[2][5].ends_with("s/6000s"), "{lines:?}");
    assert_eq!(lines[5][..2], ["orders/3", "the"]);

    let outcome = pillion(&["registry", "ls", "orders", "-o", "json", "--etcd", &etcd.url()]);
    let orders = parse(&outcome.stdout);
    let [one, two] = [&orders["endpoints"][0], &orders["endpoints"][1]];
    assert_eq!((&one["lease"], &one["metadata"]["gpu"]), (&Value::Null, &"true".into()));
    assert_eq!((&two["lease"]["granted"], &two["key"]), (&6000.into(), &"orders/2".into()));
    assert_eq!(orders["rejected"][0]["key"], "orders/3");
}

#[tokio::test]
async fn ls_takes_the_etcd_of_a_configuration_by_the_name_of_the_source() {
    let etcd = shop().await;
    etcd.put("/x/far/1", "10.0.0.9:80").await;
    let (_folder, path) = file(&format!(
        "[[source]]\nname = \"files\"\nkind = \"file\"\npath = \"f\"\n\
         [[source]]\nname = \"near\"\nendpoints = [\"{0}\"]\n\
         [[source]]\nname = \"far\"\nendpoints = [\"{0}\"]\nprefix = \"/x\"\n",
        etcd.url()
    ));
    let services = |variables: &[(&str, &str)], args: &[&str]| {
        let args = [&["registry", "ls", "-c", &path, "-o", "json"], args].concat();
        let list = parse(&pillion_with(variables, &args).stdout);
        let names = list["services"].as_array().unwrap().iter();
        names.map(|service| service["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(services(&[], &[]), ["orders", "pay", "~x~far"]);
    assert_eq!(services(&[], &["--source", "far"]), ["far"]);
    assert_eq!(services(&[("PILLION_SOURCE", "far")], &[]), ["far"]);
    assert_eq!(services(&[], &["--prefix", "/x"]), ["far"]);
    let outcome = pillion(&["registry", "ls", "-c", &path, "--source", "fare"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("no etcd source \"fare\": its etcd sources are near, far"));
}

#[tokio::test]
async fn a_service_that_is_not_there_ends_with_1_and_the_one_that_may_be_meant() {
    let etcd = shop().await;
    let outcome = pillion(&["registry", "ls", "ordes", "--etcd", &etcd.url()]);
    assert_eq!((outcome.status, &*outcome.stdout), (1, ""));
    assert!(outcome.stderr.contains("\"ordes/\"") && outcome.stderr.contains("mean orders?"));
}

#[test]
fn an_etcd_that_does_not_answer_ends_with_1_and_says_which() {
    let outcome = pillion(&["registry", "ls", "--etcd", "http://127.0.0.1:1"]);
    assert_eq!((outcome.status, &*outcome.stdout), (1, ""));
    assert!(outcome.stderr.starts_with("error: http://127.0.0.1:1: "), "{}", outcome.stderr);
}

#[tokio::test]
async fn ls_shows_ten_thousand_services() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for part in 0..100 {
        let puts = (0..100).map(|n| {
            let (key, value) = (format!("s-{part}-{n}/1"), format!("10.0.{part}.{n}:80"));
            etcd_client::TxnOp::put(key, value, None)
        });
        client.txn(etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>())).await.unwrap();
    }
    let outcome = pillion(&["registry", "ls", "--etcd", &etcd.url()]);
    assert_eq!((outcome.status, outcome.stdout.lines().count()), (0, 10_001));
}

#[tokio::test]
async fn watch_prints_what_comes_changes_and_goes_through_a_restart_of_etcd() {
    let mut etcd = shop().await;
    let mut watch = Running::start(&["registry", "watch", "--etcd", &etcd.url()]);
    watch.says("watching \"\" from revision").await;
    etcd.put("orders/1", &ORDERS_1.replace("10\"", "20\"")).await;
    let line = watch.line().await;
    assert!(line.ends_with("~ orders  10.0.0.1:80            weight 10 -> 20"), "{line}");
    // The same again is no change.
    etcd.put("orders/1", &ORDERS_1.replace("10\"", "20\"")).await;
    etcd.put("orders/3", "10.0.0.4:80").await;
    assert!(watch.line().await.contains("+ orders  10.0.0.4:80"));
    etcd.put("orders/3", "nonsense").await;
    assert!(watch.line().await.ends_with("- orders  10.0.0.4:80"));
    assert!(watch.line().await.contains("! orders  orders/3"));

    etcd.kill();
    watch.says("etcd cannot be reached, trying on").await;
    etcd.restart().await;
    watch.says("etcd was listed again").await;
    etcd.delete("pay/1").await;
    assert!(watch.line().await.ends_with("- pay     10.0.0.3:80"));
    assert_eq!(watch.interrupt().await, 0);
}

#[tokio::test]
async fn watch_of_one_service_prints_json_lines_of_no_other() {
    let etcd = shop().await;
    let url = etcd.url();
    let mut watch = Running::start(&["registry", "watch", "pay", "-o", "json", "--etcd", &url]);
    watch.says("watching \"pay/\"").await;
    etcd.delete("orders/1").await;
    etcd.put("pay/2", ORDERS_1).await;
    let event = parse(&watch.line().await);
    assert_eq!((&event["change"], &event["address"]), (&"added".into(), &"10.0.0.1:80".into()));
    assert_eq!((&event["record"]["weight"], &event["key"]), (&10.into(), &"pay/2".into()));
    assert_eq!(watch.interrupt().await, 0);
}

#[tokio::test]
async fn watch_ends_after_the_time_that_it_is_given() {
    let etcd = Etcd::start().await;
    let outcome = pillion(&["registry", "watch", "--for", "200ms", "--etcd", &etcd.url()]);
    assert_eq!((outcome.status, &*outcome.stdout), (0, ""));
}
