//! Discovery against a real etcd, through what may happen to it.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use pillion::config::{EmptyPolicy, EtcdSource, FileSource, Mode, Source, SourceKind};
use pillion::discovery::{self, Directory, Discovery, ResolveError, Timing};
use pillion::model::{Service, ServiceName};
use tokio::time::{sleep, timeout};

#[path = "support/etcd.rs"]
#[allow(dead_code, reason = "tests/chaos uses the rest")]
mod etcd;
#[path = "support/relay.rs"]
#[allow(dead_code, reason = "tests/chaos uses the rest")]
mod relay;

use etcd::Etcd;
use relay::Relay;

/// Long enough for a busy machine; nothing waits for it unless it fails.
const SOON: Duration = Duration::from_secs(20);
/// As the data path sets it.
const LIMIT: Duration = Duration::from_secs(10);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn etcd_source(url: &str) -> EtcdSource {
    EtcdSource { endpoints: vec![url.to_owned()], ..EtcdSource::default() }
}

fn source(name: &str, etcd: EtcdSource) -> Source {
    Source::new(name, SourceKind::Etcd(etcd))
}

fn file_source(name: &str, path: &Path) -> Source {
    let path = path.to_owned();
    Source::new(name, SourceKind::File(FileSource { path }))
}

/// The waits of production are for a fleet; one test need not wait.
fn brisk() -> Timing {
    let (backoff_max, spread) = (Duration::from_millis(300), Duration::from_millis(50));
    Timing { backoff_max, spread, ..Timing::default() }
}

fn start(url: &str) -> (Directory, Discovery) {
    discovery::start_with(vec![source("main", etcd_source(url))], brisk())
}

/// etcd's own naming format.
fn value(address: &str) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#)
}

fn addresses(service: &Service) -> Vec<String> {
    let endpoints = service.snapshot().endpoints.clone();
    endpoints.iter().map(|endpoint| endpoint.record.address.to_string()).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "{what} within {SOON:?}");
}

async fn until_addresses(service: &Service, expected: &[&str]) {
    let waiting = async {
        while addresses(service) != expected {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(SOON, waiting).await.is_err() {
        panic!("{} is {:?}, not {expected:?}", service.name(), addresses(service));
    }
}

async fn until_healthy(directory: &Directory) {
    until("every source to be well", || {
        directory.sources().iter().all(|source| source.synced && source.problem.is_none())
    })
    .await;
}

/// Looks at a service all the time, from another thread, and remembers the smallest set ever seen.
struct Witness {
    least: Arc<AtomicUsize>,
}

impl Witness {
    fn of(service: &Arc<Service>) -> Self {
        let least = Arc::new(AtomicUsize::new(usize::MAX));
        let (service, seen) = (Arc::clone(service), Arc::downgrade(&least));
        std::thread::spawn(move || {
            while let Some(seen) = seen.upgrade() {
                seen.fetch_min(service.snapshot().endpoints.len(), Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { least }
    }

    fn least(self) -> usize {
        self.least.load(Relaxed)
    }
}

#[tokio::test]
async fn puts_and_deletes_are_seen_within_milliseconds() {
    let etcd = Etcd::start().await;
    etcd.put("orders/0", &value("10.0.0.1:9000")).await;
    let main = EtcdSource { brake: None, ..etcd_source(&etcd.url()) };
    let (directory, _discovery) = discovery::start_with(vec![source("main", main)], brisk());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&service), ["10.0.0.1:9000"]);

    let mut client = etcd.client().await;
    let mut delays = Vec::new();
    for port in 9001..9021 {
        let address = format!("10.0.0.1:{port}");
        client.put(format!("orders/{port}"), value(&address), None).await.unwrap();
        let put = Instant::now();
        while !addresses(&service).contains(&address) {
            assert!(put.elapsed() < SOON);
            sleep(Duration::from_micros(100)).await;
        }
        delays.push(put.elapsed());
        // Out of the burst of the put before.
        sleep(Duration::from_millis(15)).await;
    }
    delays.sort();
    assert!(delays[delays.len() / 2] < Duration::from_millis(50), "{delays:?}");

    client
        .put("orders/0", r#"{"Addr":"10.0.0.1:9000","Metadata":{"weight":"7"}}"#, None)
        .await
        .unwrap();
    until("the weight", || service.snapshot().endpoints[0].record.weight == 7).await;
    for port in 9001..9021 {
        client.delete(format!("orders/{port}"), None).await.unwrap();
    }
    until_addresses(&service, &["10.0.0.1:9000"]).await;
    until("all to be counted", || {
        let status = &directory.sources()[0];
        status.events >= 41 && status.revision >= 42
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_goes_with_its_lease() {
    let etcd = Etcd::start().await;
    etcd.put("orders/stays", &value("10.0.0.1:80")).await;
    etcd.put_leased("orders/goes", &value("10.0.0.2:80"), 1).await;
    let (directory, _discovery) = start(&etcd.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let load = Arc::clone(&service.snapshot().endpoints[1].load);
    until_addresses(&service, &["10.0.0.1:80"]).await;
    assert!(load.is_gone());
}

#[tokio::test]
async fn a_service_shows_its_own_keys_alone() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    etcd.put("orders2/1", &value("10.0.0.2:80")).await;
    etcd.put("orders/eu/1", &value("10.0.0.3:80")).await;
    let (directory, _discovery) = start(&etcd.url());
    let orders = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let nested = directory.resolve(&name("orders~eu"), LIMIT).await.unwrap();
    assert_eq!(addresses(&orders), ["10.0.0.1:80"]);
    assert_eq!(addresses(&nested), ["10.0.0.3:80"]);
    etcd.put("orders/eu/2", &value("10.0.0.4:80")).await;
    until_addresses(&nested, &["10.0.0.3:80", "10.0.0.4:80"]).await;
    assert_eq!(addresses(&orders), ["10.0.0.1:80"]);
    assert!(orders.snapshot().rejected.is_empty());
}

#[tokio::test]
async fn concurrent_first_calls_from_many_threads_share_one_list() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let (directory, _discovery) = start(&etcd.url());
    until_healthy(&directory).await;
    let before = etcd.calls("Range").await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let directory = directory.clone();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..25 {
                        directory.resolve(&name("orders"), LIMIT).await.unwrap();
                    }
                });
            })
        })
        .collect();
    until("the threads to end", || threads.iter().all(|thread| thread.is_finished())).await;
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(etcd.calls("Range").await - before, 1);
}

#[tokio::test]
async fn an_absent_service_is_known_the_moment_it_appears() {
    let etcd = Etcd::start().await;
    let (directory, _discovery) = start(&etcd.url());
    let absent = directory.resolve(&name("orders"), LIMIT).await.unwrap_err();
    assert_eq!(absent, ResolveError::Absent(name("orders")));
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    until("the service", || directory.get(&name("orders")).is_some()).await;
}

#[tokio::test]
async fn a_bad_value_harms_nothing_but_itself() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    etcd.put("orders/2", "{garbage").await;
    let (directory, _discovery) = start(&etcd.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&service), ["10.0.0.1:80"]);
    assert_eq!(&*service.snapshot().rejected[0].key, "orders/2");

    let mut client = etcd.client().await;
    client.put("orders/1", vec![b'x'; 1_400_000], None).await.unwrap();
    client.put(&b"orders/\xff\xfe"[..], value("10.0.0.9:80"), None).await.unwrap();
    client.put("orders/3", value("10.0.0.3:80"), None).await.unwrap();
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.3:80"]).await;
    let reasons: Vec<_> = service.snapshot().rejected.iter().map(|r| r.reason.clone()).collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[0].starts_with("the value has 1400000 bytes"), "{reasons:?}");
    assert!(reasons[0].ends_with("its last good value is used"), "{reasons:?}");
    until("all to be counted", || directory.sources()[0].rejected == 3).await;

    client.delete("orders/1", None).await.unwrap();
    until_addresses(&service, &["10.0.0.3:80"]).await;
}

#[tokio::test]
async fn a_long_list_is_read_in_pages_of_one_revision() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for batch in 0..10 {
        let puts = (0..100).map(|n| {
            let n = batch * 100 + n;
            let address = format!("10.1.{}.{}:80", n / 250, n % 250);
            etcd_client::TxnOp::put(format!("orders/{n:04}"), value(&address), None)
        });
        let txn = etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>());
        client.txn(txn).await.unwrap();
    }
    let (directory, _discovery) = start(&etcd.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(service.snapshot().endpoints.len(), 1000);
    assert_eq!(service.snapshot().revision, 11);
}

#[tokio::test]
async fn the_set_survives_a_crash_of_etcd_and_is_watched_on_without_a_new_list() {
    let mut etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let (directory, _discovery) = start(&relay.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let witness = Witness::of(&service);
    etcd.kill();
    relay.cut();
    until("the loss to show", || directory.sources()[0].problem.is_some()).await;
    assert!(directory.get(&name("orders")).is_some());
    etcd.restart().await;
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    let lists = etcd.calls("Range").await;
    relay.mend();
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    assert!(witness.least() >= 1);
    until_healthy(&directory).await;
    assert_eq!(etcd.calls("Range").await, lists, "the watch resumed");
    assert_eq!(directory.sources()[0].resyncs, 0);
}

#[tokio::test]
async fn a_compaction_while_disconnected_is_mended_by_a_list() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    for n in 1..=3 {
        etcd.put(&format!("orders/{n}"), &value(&format!("10.0.0.{n}:80"))).await;
    }
    let (directory, _discovery) = start(&relay.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&service).len(), 3);
    let load = Arc::clone(&service.snapshot().endpoints[1].load);
    let witness = Witness::of(&service);
    relay.cut();
    until("the loss to show", || directory.sources()[0].problem.is_some()).await;
    etcd.delete("orders/1").await;
    etcd.put("orders/4", &value("10.0.0.4:80")).await;
    for _ in 0..20 {
        etcd.put("other/1", &value("10.0.0.9:80")).await;
    }
    etcd.compact().await;
    relay.mend();
    until_addresses(&service, &["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]).await;
    assert!(witness.least() >= 3, "never fewer, never empty");
    assert!(Arc::ptr_eq(&service.snapshot().endpoints[0].load, &load));
    until("the list to be counted", || directory.sources()[0].resyncs == 1).await;
    etcd.put("orders/5", &value("10.0.0.5:80")).await;
    until("the watch to go on", || addresses(&service).len() == 4).await;
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed_within_15_seconds_and_recovered_from() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    // The durations of production, because they are what is promised.
    let timing = Timing { on_demand: Duration::ZERO, ..Timing::default() };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&etcd.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    until("proof of life", || directory.sources()[0].age.is_some()).await;
    let witness = Witness::of(&service);
    etcd.freeze();
    let frozen = Instant::now();
    until("the freeze to show", || directory.sources()[0].problem.is_some()).await;
    // 12 s by design; the rest is for a busy machine.
    assert!(frozen.elapsed() < Duration::from_secs(15), "{:?}", frozen.elapsed());
    assert!(directory.sources()[0].age.unwrap() >= Duration::from_secs(3));
    etcd.thaw();
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    // A new name hurries the next attempt.
    until("the change made since", || {
        let (directory, other) = (directory.clone(), name("others"));
        tokio::spawn(async move { directory.resolve(&other, Duration::from_millis(10)).await });
        addresses(&service).len() == 2
    })
    .await;
    assert!(witness.least() >= 1);
}

#[tokio::test]
async fn a_black_hole_is_noticed_by_its_silence() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let timing = Timing {
        heartbeat: Duration::from_millis(500),
        silence: Duration::from_secs(4),
        ..brisk()
    };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&relay.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let status = &directory.sources()[0];
    assert_eq!(status.problem, None, "a quiet etcd is no silent one");
    assert!(status.age.unwrap() < Duration::from_secs(4), "{:?}", status.age);
    relay.freeze();
    until("the silence to show", || directory.sources()[0].problem.is_some()).await;
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(addresses(&service), ["10.0.0.1:80"]);
    relay.mend();
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_found_out_by_what_it_should_have_said() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let timing =
        Timing { heartbeat: Duration::from_millis(100), stall: Duration::from_secs(2), ..brisk() };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&relay.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let age = || directory.sources()[0].age.unwrap();
    until("proof", || directory.sources()[0].age.is_some()).await;
    relay.mute();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(directory.sources()[0].problem, None, "there is nothing that it should have said");
    assert!(age() < Duration::from_secs(2), "{:?}", age());
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    let put = Instant::now();
    until("the silence to show", || directory.sources()[0].problem.is_some()).await;
    // What was proved before the put may be known a little after it.
    assert!(age() + Duration::from_secs(1) >= put.elapsed(), "{:?}", age());
    relay.mend();
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
}

#[tokio::test]
async fn services_behind_etcds_own_proxy_are_followed_whoever_else_watches_them() {
    let etcd = Etcd::start().await;
    let proxy = etcd.grpc_proxy().await;
    let names: Vec<_> = (0..20).map(|n| format!("service{n}")).collect();
    for name in &names {
        etcd.put(&format!("{name}/1"), &value("10.0.0.1:80")).await;
    }
    let resolve = async |directory: &Directory, names: Vec<&String>| {
        let all = names.into_iter().map(|of| (directory.clone(), name(of)));
        let all = all.map(|(of, name)| async move { of.resolve(&name, LIMIT).await.unwrap() });
        futures_util::future::join_all(all).await
    };
    // The proxy answers at once for what it watches already, and later for the rest.
    let (first, _first) = start(&proxy.url());
    let half = resolve(&first, names.iter().step_by(2).collect()).await;
    sleep(Duration::from_millis(300)).await;
    let (second, _second) = start(&proxy.url());
    let all = resolve(&second, names.iter().collect()).await;
    sleep(Duration::from_millis(300)).await;
    for name in &names {
        etcd.put(&format!("{name}/1"), &value("10.0.0.2:80")).await;
    }
    for service in half.iter().chain(&all) {
        until_addresses(service, &["10.0.0.2:80"]).await;
    }
    for directory in [first, second] {
        assert_eq!(directory.sources()[0].resyncs, 0, "told by watches alone");
    }
}

#[tokio::test]
async fn behind_etcds_own_proxy_that_does_not_tell_progress_silence_is_looked_into() {
    let etcd = Etcd::start().await;
    let proxy = etcd.grpc_proxy().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let (heartbeat, stall) = (Duration::from_millis(100), Duration::from_millis(500));
    let timing = Timing { heartbeat, stall, ..brisk() };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&proxy.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    // What is written elsewhere is of no concern, but nobody says so.
    etcd.put("other/1", &value("10.0.0.9:80")).await;
    let written = Instant::now();
    until("a list", || directory.sources()[0].resyncs > 0).await;
    until("proof", || directory.sources()[0].age.unwrap() < written.elapsed()).await;
    assert_eq!(directory.sources()[0].problem, None);
    assert_eq!(directory.sources()[0].troubles.iter().sum::<u64>(), 0, "nothing was missed");
    etcd.put("orders/1", &value("10.0.0.2:80")).await;
    until_addresses(&service, &["10.0.0.2:80"]).await;
}

#[tokio::test]
async fn an_endpoint_in_doubt_is_looked_up_again_whatever_the_watch_says() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let of = |mode| source("main", EtcdSource { mode, ..etcd_source(&relay.url()) });
    let (lazy, _lazy) = discovery::start_with(vec![of(Mode::Lazy)], brisk());
    let (eager, _eager) = discovery::start_with(vec![of(Mode::Eager)], brisk());
    let services = [
        lazy.resolve(&name("orders"), LIMIT).await.unwrap(),
        eager.resolve(&name("orders"), LIMIT).await.unwrap(),
    ];
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    for service in &services {
        until_addresses(service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    }
    relay.mute();
    etcd.delete("orders/1").await;
    for (directory, service) in [&lazy, &eager].into_iter().zip(&services) {
        assert_eq!(addresses(service).len(), 2, "nobody has told");
        directory.doubt(service.name());
        until_addresses(service, &["10.0.0.2:80"]).await;
    }
    relay.mend();
    etcd.put("orders/3", &value("10.0.0.3:80")).await;
    for service in &services {
        until_addresses(service, &["10.0.0.2:80", "10.0.0.3:80"]).await;
    }
}

#[tokio::test]
async fn without_etcd_calls_fail_fast_until_it_is_there() {
    let mut etcd = Etcd::stopped();
    let (directory, _discovery) = start(&etcd.url());
    until("the failure to show", || {
        directory.sources()[0].problem.as_ref().is_some_and(|problem| problem.contains("refused"))
    })
    .await;
    assert!(!directory.sources()[0].synced);
    assert_eq!(directory.sources()[0].age, None);
    let orders = name("orders");
    let asked = timeout(SOON, directory.resolve(&orders, 2 * SOON)).await;
    let error = asked.expect("known to be away, so nobody waits").unwrap_err();
    assert!(error.to_string().starts_with("service orders: source main: http://"), "{error}");
    etcd.restart().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    until("the service", || directory.get(&name("orders")).is_some()).await;
    assert!(directory.sources()[0].synced);
}

#[tokio::test]
async fn another_cluster_on_the_same_address_is_read_from_the_start() {
    let mut etcd = Etcd::start().await;
    for n in 1..=5 {
        etcd.put("orders/1", &value(&format!("10.0.0.{n}:80"))).await;
    }
    etcd.put("orders/2", &value("10.0.0.9:80")).await;
    let (directory, _discovery) = start(&etcd.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let witness = Witness::of(&service);
    etcd.kill();
    // The new cluster has data before anyone can see it without.
    let mut other = Etcd::start().await;
    other.put("orders/1", &value("10.0.0.77:80")).await;
    other.kill();
    other.take_over(&etcd).await;
    until_addresses(&service, &["10.0.0.77:80"]).await;
    assert!(witness.least() >= 1);
    other.put("orders/2", &value("10.0.0.78:80")).await;
    until_addresses(&service, &["10.0.0.77:80", "10.0.0.78:80"]).await;
}

#[tokio::test]
async fn an_etcd_restored_from_an_older_backup_is_read_from_the_start() {
    let mut etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    etcd.back_up();
    etcd.restart().await;
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    etcd.put("orders/3", &value("10.0.0.3:80")).await;
    let (directory, _discovery) = start(&etcd.url());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&service).len(), 3);
    etcd.restore().await;
    until_addresses(&service, &["10.0.0.1:80"]).await;
    etcd.put("orders/4", &value("10.0.0.4:80")).await;
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.4:80"]).await;
}

#[tokio::test]
async fn a_dead_member_does_not_stop_the_others() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let dead = format!("http://127.0.0.1:{}", etcd::free_port());
    for endpoints in [vec![dead.clone(), etcd.url()], vec![etcd.url(), dead.clone(), dead]] {
        let main = EtcdSource { endpoints, ..etcd_source("") };
        let (directory, _discovery) = discovery::start_with(vec![source("main", main)], brisk());
        let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
        assert_eq!(addresses(&service), ["10.0.0.1:80"]);
    }
}

#[tokio::test]
async fn an_eager_source_knows_every_service_from_the_start() {
    let etcd = Etcd::start().await;
    etcd.put("/reg/orders/1", &value("10.0.0.1:80")).await;
    etcd.put("/reg/eu/pay/1", "10.0.0.2:80").await;
    etcd.put("/other/pay/1", "10.0.0.3:80").await;
    let eager =
        EtcdSource { mode: Mode::Eager, prefix: "/reg".to_owned(), ..etcd_source(&etcd.url()) };
    let (directory, _discovery) = discovery::start_with(vec![source("main", eager)], brisk());
    until_healthy(&directory).await;
    let names = || directory.services().iter().map(|s| s.name().to_string()).collect::<Vec<_>>();
    assert_eq!(names(), ["eu~pay", "orders"]);
    let absent = directory.resolve(&name("pay"), LIMIT).await.unwrap_err();
    assert_eq!(absent, ResolveError::Absent(name("pay")));
    etcd.put("/reg/pay/1", "10.0.0.4:80").await;
    until("the new service", || directory.get(&name("pay")).is_some()).await;
    let orders = directory.get(&name("orders")).unwrap();
    etcd.delete("/reg/orders/1").await;
    until_addresses(&orders, &[]).await;
}

#[tokio::test]
async fn an_idle_service_is_dropped_and_found_again() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let timing =
        Timing { idle: Duration::from_secs(1), sweep: Duration::from_millis(20), ..brisk() };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&etcd.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let load = Arc::clone(&service.snapshot().endpoints[0].load);
    until("the idle service to go", || service.is_retired()).await;
    assert!(load.is_gone() && directory.services().is_empty());
    etcd.put("orders/1", &value("10.0.0.2:80")).await;
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&service), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_list_now_and_then_finds_nothing_to_mend_and_changes_nothing() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let timing = Timing {
        heartbeat: Duration::from_millis(50),
        relist: Duration::from_millis(50),
        ..brisk()
    };
    let (directory, _discovery) =
        discovery::start_with(vec![source("main", etcd_source(&etcd.url()))], timing);
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let before = service.snapshot().clone();
    until("some lists", || directory.sources()[0].resyncs > 3).await;
    assert!(Arc::ptr_eq(&before, &service.snapshot()));
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_source_that_keeps_outlives_an_empty_list() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let keep = EtcdSource { empty: EmptyPolicy::Keep, ..etcd_source(&etcd.url()) };
    let serve = EtcdSource { prefix: String::new(), ..etcd_source(&etcd.url()) };
    let (kept, _first) = discovery::start_with(vec![source("main", keep)], brisk());
    let (served, _second) = discovery::start_with(vec![source("main", serve)], brisk());
    let kept = kept.resolve(&name("orders"), LIMIT).await.unwrap();
    let served = served.resolve(&name("orders"), LIMIT).await.unwrap();
    etcd.delete("orders/1").await;
    until_addresses(&served, &[]).await;
    assert_eq!(addresses(&kept), ["10.0.0.1:80"]);
    etcd.put("orders/2", &value("10.0.0.2:80")).await;
    until_addresses(&kept, &["10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_file_is_read_again_when_it_is_renamed_over_or_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    let (directory, _discovery) =
        discovery::start_with(vec![file_source("static", &path)], brisk());
    let error = directory.resolve(&name("orders"), LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");

    let entry =
        |port: u16| format!("[[endpoint]]\nservice = \"orders\"\naddress = \"10.0.0.1:{port}\"\n");
    std::fs::write(&path, entry(80)).unwrap();
    until("the file", || directory.get(&name("orders")).is_some()).await;
    let service = directory.get(&name("orders")).unwrap();
    assert_eq!(addresses(&service), ["10.0.0.1:80"]);
    assert_eq!(&*service.snapshot().endpoints[0].key, format!("{}:1", path.display()));

    let new = folder.path().join("new");
    std::fs::write(&new, format!("{}{}weight = -3\n", entry(81), entry(82))).unwrap();
    std::fs::rename(&new, &path).unwrap();
    until_addresses(&service, &["10.0.0.1:81"]).await;
    assert!(service.snapshot().rejected[0].reason.starts_with("line 7: "));

    std::fs::write(&path, "[[endpoint]\n").unwrap();
    until("the error", || directory.sources()[0].problem.is_some()).await;
    assert_eq!(addresses(&service), ["10.0.0.1:81"], "a broken file changes nothing");
    std::fs::write(&path, entry(83)).unwrap();
    until_addresses(&service, &["10.0.0.1:83"]).await;
    until_healthy(&directory).await;
}

#[tokio::test]
async fn sources_are_merged_by_address_and_the_first_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    let entry = |address: &str| {
        format!("[[endpoint]]\nservice = \"orders\"\naddress = \"{address}\"\nweight = 5\n")
    };
    std::fs::write(&path, entry("10.0.0.1:80") + &entry("10.0.0.2:80")).unwrap();
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    let main = source("main", etcd_source(&etcd.url()));
    let (directory, _discovery) =
        discovery::start_with(vec![main, file_source("static", &path)], brisk());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let seen = || {
        let endpoints = service.snapshot().endpoints.clone();
        let text = |e: &Arc<_>| {
            let e: &pillion::model::Endpoint = e;
            format!("{} {} {}", e.record.address, e.source, e.record.weight)
        };
        endpoints.iter().map(text).collect::<Vec<_>>()
    };
    until("the file too", || seen().len() == 2).await;
    assert_eq!(seen(), ["10.0.0.1:80 main 100", "10.0.0.2:80 static 5"]);
    etcd.delete("orders/1").await;
    until("the file's word to count", || seen()[0] == "10.0.0.1:80 static 5").await;
}

#[tokio::test]
async fn a_reload_leaves_equal_sources_alone_and_replaces_others_without_a_gap() {
    let etcd = Etcd::start().await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    etcd.put("new/orders/1", &value("10.0.0.1:80")).await;
    etcd.put("new/orders/2", &value("10.0.0.2:80")).await;
    let main = || source("main", etcd_source(&etcd.url()));
    let (directory, mut discovery) = discovery::start_with(vec![main()], brisk());
    let service = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    let load = Arc::clone(&service.snapshot().endpoints[0].load);
    let events = etcd.calls("Range").await;
    let witness = Witness::of(&service);

    discovery.reload(vec![main()]);
    etcd.put("orders/3", &value("10.0.0.3:80")).await;
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.3:80"]).await;
    assert_eq!(etcd.calls("Range").await, events, "nothing was listed again");
    etcd.delete("orders/3").await;

    let moved = EtcdSource { prefix: "new".to_owned(), ..etcd_source(&etcd.url()) };
    discovery.reload(vec![source("main", moved)]);
    until_addresses(&service, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    assert!(witness.least() >= 1);
    assert!(!load.is_gone() && !service.is_retired());
    etcd.delete("new/orders/1").await;
    until_addresses(&service, &["10.0.0.2:80"]).await;
    assert_eq!(directory.sources().len(), 1);
}

#[tokio::test]
async fn a_user_reads_what_it_may_and_is_told_what_it_may_not() {
    let etcd = Etcd::start_with(&["--auth-token-ttl", "1", "--bcrypt-cost", "4"]).await;
    etcd.put("orders/1", &value("10.0.0.1:80")).await;
    etcd.allow("pillion", "hush hush", "orders").await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hush hush\n").unwrap();
    let main = EtcdSource {
        username: "pillion".to_owned(),
        password_file: Some(password),
        ..etcd_source(&etcd.url())
    };
    let (directory, _discovery) = discovery::start_with(vec![source("main", main)], brisk());
    let orders = directory.resolve(&name("orders"), LIMIT).await.unwrap();
    assert_eq!(addresses(&orders), ["10.0.0.1:80"]);

    // The login has run out, and with it that of the watch stream, which etcd says only to a new watch.
    sleep(Duration::from_secs(3)).await;
    let absent = directory.resolve(&name("orders2"), LIMIT).await.unwrap_err();
    assert_eq!(absent, ResolveError::Absent(name("orders2")));
    etcd.put_as("root", "root", "orders2/1", &value("10.0.0.3:80")).await;
    until("the new service", || directory.get(&name("orders2")).is_some()).await;
    etcd.put_as("root", "root", "orders/2", &value("10.0.0.2:80")).await;
    until_addresses(&orders, &["10.0.0.1:80", "10.0.0.2:80"]).await;

    let error = directory.resolve(&name("pay"), LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[tokio::test]
async fn etcd_is_reached_over_tls_and_only_with_the_right_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (other, other_key) = (folder.path().join("other.pem"), folder.path().join("other.key"));
    for (cert, key) in [(&cert, &key), (&other, &other_key)] {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=etcd"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(cert)
            .output();
        assert!(made.unwrap().status.success());
    }
    let etcd = Etcd::start_tls(&cert, &key).await;
    let with = |ca: Option<&Path>| EtcdSource {
        ca_file: ca.map(Path::to_owned),
        ..etcd_source(&etcd.url())
    };
    let main = |ca| vec![source("main", with(ca))];
    let (right, _right) = discovery::start_with(main(Some(&cert)), brisk());
    until_healthy(&right).await;
    let absent = right.resolve(&name("orders"), LIMIT).await.unwrap_err();
    assert_eq!(absent, ResolveError::Absent(name("orders")));

    let (wrong, _wrong) = discovery::start_with(main(Some(&other)), brisk());
    let (without, _without) = discovery::start_with(main(None), brisk());
    for (directory, expected) in [(wrong, "certificate"), (without, "cert")] {
        until(expected, || {
            let problem = directory.sources()[0].problem.clone().unwrap_or_default();
            problem.contains(expected)
        })
        .await;
        assert!(!directory.sources()[0].synced);
    }
}
