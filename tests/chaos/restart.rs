//! Starts without etcd, from the sets that were saved.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::process::Signal;

use crate::backend::Backend;
use crate::client::Client;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::Program;
use crate::scene::{age, backends, key, register, source, until_ready};
use crate::wait::until;

fn config(etcd: &Etcd, folder: &Path, keys: &str) -> String {
    format!("state_dir = {folder:?}\n{}", source(&etcd.url(), keys))
}

/// Runs until what it knows of `orders` is on disk, then kills it.
async fn save(etcd: &Etcd, folder: &Path, keys: &str, count: usize) {
    let pillion = Program::new(&config(etcd, folder, keys)).start().await;
    Flow::start(&pillion, "orders").await.end().await;
    until_ready(&pillion, count).await;
    let file = folder.join("main.json");
    until("it is saved", async || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.matches("\"address\"").count() == count
    })
    .await;
    pillion.signal(Signal::KILL);
}

#[tokio::test]
async fn a_start_without_etcd_serves_what_was_saved_and_says_how_old_it_is() {
    let mut etcd = Etcd::start().await;
    let backends = backends(&etcd, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    save(&etcd, &state, "", 3).await;
    etcd.kill();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("main.json"))), (0o700, 0o600));
    tokio::time::sleep(Duration::from_secs(2)).await;

    let pillion = Program::new(&config(&etcd, &state, "")).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 3).await;
    assert!(age(&pillion).await > 1.5, "{}", age(&pillion).await);
    assert_eq!(pillion.metrics().await.sum("source_synced", &[]), 0.0);
    let page = pillion.get("/services/orders").await.json();
    assert!(page["age_seconds"].as_f64().unwrap() > 1.5, "{page}");
    let client = Client::connect(pillion.address()).await;
    let unseen = client.call("pay").await;
    assert_eq!(unseen.header("pillion-error"), Some("registry_unavailable"));

    // What has changed is seen when etcd is back, without anyone asking.
    etcd.restart().await;
    etcd.delete(&key(backends[0].address())).await;
    let another = Backend::echo().await;
    register(&etcd, another.address()).await;
    until("the change is seen", async || another.counts().calls > 0).await;
    until("it is proved", async || age(&pillion).await < 8.0).await;
    assert_eq!(pillion.metrics().await.sum("source_synced", &[]), 1.0);
    until_ready(&pillion, 3).await;
    flow.end().await;
}

#[tokio::test]
async fn a_start_with_etcd_does_not_use_what_was_saved() {
    let etcd = Etcd::start().await;
    let backends = backends(&etcd, 1).await;
    let folder = tempfile::tempdir().unwrap();
    save(&etcd, folder.path(), "", 1).await;
    etcd.delete(&key(backends[0].address())).await;
    let other = Backend::echo().await;
    register(&etcd, other.address()).await;
    let pillion = Program::new(&config(&etcd, folder.path(), "")).start().await;
    Flow::start(&pillion, "orders").await.end().await;
    assert!(!pillion.log().contains("before the start"), "{}", pillion.log());
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("orders").await.from(), other.address());
}

#[tokio::test]
async fn a_whole_registry_is_brought_back_as_well() {
    let mut etcd = Etcd::start().await;
    let _backends = backends(&etcd, 2).await;
    let folder = tempfile::tempdir().unwrap();
    save(&etcd, folder.path(), "mode = \"eager\"", 2).await;
    etcd.kill();
    let pillion = Program::new(&config(&etcd, folder.path(), "mode = \"eager\"")).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let client = Client::connect(pillion.address()).await;
    let unseen = client.call("pay").await;
    assert_eq!(unseen.header("pillion-error"), Some("registry_unavailable"), "it may be there");
    flow.end().await;
}

#[tokio::test]
async fn a_file_that_is_damaged_or_of_another_registry_harms_nothing() {
    let mut etcd = Etcd::start().await;
    let _backends = backends(&etcd, 1).await;
    let folder = tempfile::tempdir().unwrap();
    save(&etcd, folder.path(), "", 1).await;
    etcd.kill();
    let file = folder.path().join("main.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("127.0.0.1:", "127.0.0.9:")).unwrap();
    for (keys, problem) in [("", "damaged"), ("prefix = \"/other\"", "another prefix")] {
        let config = config(&etcd, folder.path(), keys);
        let pillion = Program::new(&config).start_unready().await;
        until("it says why", async || pillion.log().contains(problem)).await;
        let client = Client::connect(pillion.address()).await;
        let answer = client.call("orders").await;
        assert_eq!(answer.header("pillion-error"), Some("registry_unavailable"));
        assert_eq!(pillion.get("/ready").await.status, 503);
        fs::write(&file, &good).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_costs_no_call() {
    let etcd = Etcd::start().await;
    let _backends = backends(&etcd, 1).await;
    let folder = tempfile::tempdir().unwrap();
    // A disk of its own, of a few pages, and full.
    let disk = "mount -t tmpfs -o size=16k none $0 && { yes > $0/full; exec \"$@\"; }";
    let room = folder.path().to_str().unwrap();
    let by = ["unshare", "--mount", "sh", "-c", disk, room];
    if !std::process::Command::new(by[0]).args([by[1], "true"]).status().unwrap().success() {
        eprintln!("skipped: no mount of its own");
        return;
    }
    let config = config(&etcd, folder.path(), "");
    let pillion = Program::new(&config).by(&by).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    let errors = async || pillion.metrics().await.sum("source_save_errors_total", &[]);
    until("it is counted", async || errors().await >= 1.0).await;
    let other = Backend::echo().await;
    register(&etcd, other.address()).await;
    until("it is counted again", async || errors().await >= 2.0).await;
    assert_eq!(pillion.log().matches("sets cannot be saved").count(), 1, "{}", pillion.log());
    flow.more().await;
    flow.end().await;

    // The disk as the program sees it.
    let disk = format!("/proc/{}/root{room}", pillion.id());
    fs::remove_file(format!("{disk}/full")).unwrap();
    let third = Backend::echo().await;
    register(&etcd, third.address()).await;
    let file = format!("{disk}/main.json");
    until("it is saved when there is room", async || Path::new(&file).exists()).await;
}
