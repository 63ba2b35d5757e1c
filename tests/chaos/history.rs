//! An etcd whose past is not what it was: compacted, restored from a backup, or another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::backend::Backend;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::Pillion;
use crate::relay::Relay;
use crate::scene::{age, backends, key, proxy, register, until_ready};
use crate::wait::until;

/// Looks at how many endpoints there are, all the time, and remembers the least.
struct Witness {
    least: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    looking: tokio::task::JoinHandle<()>,
}

impl Witness {
    fn of(pillion: &Pillion) -> Self {
        let (least, done) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::<AtomicBool>::default());
        let (admin, seen, end) =
            (pillion.admin().to_owned(), Arc::clone(&least), Arc::clone(&done));
        let looking = tokio::spawn(async move {
            while !end.load(Relaxed) {
                let page = crate::admin::ask(&admin, "GET", "/services/orders").await.json();
                seen.fetch_min(page["endpoints"].as_array().unwrap().len(), Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { least, done, looking }
    }

    async fn least(self) -> usize {
        self.done.store(true, Relaxed);
        self.looking.await.unwrap();
        self.least.load(Relaxed)
    }
}

async fn troubles(pillion: &Pillion, cause: &str) -> f64 {
    pillion.metrics().await.sum("source_troubles_total", &[("cause", cause)])
}

#[tokio::test]
async fn a_compaction_while_disconnected_is_mended_by_one_list_and_no_set_is_ever_empty() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let backends = backends(&etcd, 4).await;
    let pillion = proxy(&relay.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 4).await;
    let witness = Witness::of(&pillion);
    relay.cut();
    let mut client = etcd.client().await;
    for n in 0..1000 {
        client.put("elsewhere/1", n.to_string(), None).await.unwrap();
    }
    etcd.delete(&key(backends[0].address())).await;
    let another = Backend::echo().await;
    register(&etcd, another.address()).await;
    etcd.compact().await;
    let lists = etcd.calls("Range").await;
    relay.mend();
    until("the new endpoint is called", async || another.counts().calls > 0).await;
    until_ready(&pillion, 4).await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    assert_eq!(etcd.calls("Range").await - lists, 1);
    assert_eq!(troubles(&pillion, "compaction").await, 1.0);
    assert!(witness.least().await >= 4);
    flow.end().await;
}

#[tokio::test]
async fn an_etcd_restored_from_a_backup_is_believed_but_not_without_a_look_at_the_endpoints() {
    let mut etcd = Etcd::start().await;
    let mut old = backends(&etcd, 1).await;
    etcd.back_up();
    etcd.restart().await;
    old.extend(backends(&etcd, 4).await);
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 5).await;
    let witness = Witness::of(&pillion);
    // Of five endpoints the backup knows one; the others are as alive as before.
    etcd.restore().await;
    until("it is noticed", async || troubles(&pillion, "history").await == 1.0).await;
    until("the others have been dialled", async || pillion.log().contains("answer=4")).await;
    assert!(witness.least().await >= 5);
    // As their owners do when they find that their leases are gone.
    for backend in &old {
        register(&etcd, backend.address()).await;
    }
    until_ready(&pillion, 5).await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    pillion.until_logged("another cluster or was restored").await;
    flow.end().await;
}

#[tokio::test]
async fn another_cluster_at_the_address_is_read_from_the_start() {
    let mut etcd = Etcd::start().await;
    let _first = backends(&etcd, 2).await;
    let pillion = proxy(&etcd.url(), "").await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    etcd.kill();
    let mut other = Etcd::start().await;
    let second = backends(&other, 1).await;
    other.kill();
    other.take_over(&etcd).await;
    until("its endpoint is called", async || second[0].counts().calls > 0).await;
    until_ready(&pillion, 1).await;
    assert_eq!(troubles(&pillion, "history").await, 1.0);
    let third = backends(&other, 1).await;
    until("it is followed", async || third[0].counts().calls > 0).await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}
