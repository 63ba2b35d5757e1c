//! Half an hour of everything at once: calls and streams of all kinds, in plaintext and in TLS whose
//! certificates are replaced; endpoints that come, go and die; an etcd that is killed and frozen; live policy,
//! a registration and reloads; operators who look. What the program holds afterwards is what it held before.
//!
//! `make soak` runs it, on an optimised build; `MINUTES=10 make soak` for less. It prints a table of what
//! the program holds, and leaves it in `target/soak.txt`.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]
#![allow(dead_code, reason = "other tests use the rest of what is shared")]

#[path = "../support/admin.rs"]
mod admin;
#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/metrics.rs"]
mod metrics;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/tls.rs"]
mod tls;
#[path = "../support/tls_peer.rs"]
mod tls_peer;
#[path = "../support/wait.rs"]
mod wait;

mod load;
mod operators;
mod record;
mod secret;
mod trouble;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::etcd::Etcd;
use crate::load::Load;
use crate::program::Program;
use crate::record::{Record, Sample};
use crate::secret::Secret;
use crate::trouble::Site;
use crate::wait::until;

/// For everything that is allocated once, and only then.
const WARM_UP: Duration = Duration::from_secs(60);
/// For connections to close and sets to settle.
const SETTLE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour; `make soak`"]
async fn what_it_holds_after_half_an_hour_of_everything_is_what_it_held_before() {
    let minutes = std::env::var("MINUTES").map_or(30, |minutes| minutes.parse().unwrap());
    let length = Duration::from_secs(60 * minutes);
    let folder = tempfile::tempdir().unwrap();
    let secret = Arc::new(Secret::start(folder.path()).await);
    let site = Arc::new(Site::start(Etcd::start().await, folder.path(), &secret).await);
    let config = |number| site.config(number) + &secret.config();
    let pillion = Program::new(&config(0)).listen_by_config().start().await;
    let [plain, tls] = pillion.addresses()[..] else { panic!("two listeners") };
    let load = Arc::new(Load::new(plain, tls, secret.application()));
    let asked = Arc::new(AtomicUsize::new(0));

    let storm = async |length: Duration, mut record: Option<&mut Record>| {
        let (stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let calling = Load::call(&load, &stopped);
        let breaking = Site::trouble(&site, &stopped);
        let (of_tls, until_stopped) = (Arc::clone(&secret), stopped.clone());
        let rotating = tokio::spawn(async move { of_tls.rotate(until_stopped).await });
        let (admin, count) = (pillion.admin().to_owned(), Arc::clone(&asked));
        let looking = tokio::spawn(async move { operators::look(admin, stopped, &count).await });
        let mut reloads = 0;
        while began.elapsed() < length {
            reloads += 1;
            pillion.set_whole_config(&config(reloads));
            let next = Instant::now() + Duration::from_secs(5);
            while Instant::now() < next {
                sleep(Duration::from_millis(100)).await;
                let at = began.elapsed();
                if let Some(record) = record.as_mut().filter(|record| record.is_due(at, length)) {
                    record.push(Sample::of(&pillion, &load, at).await);
                }
            }
        }
        stop.send_replace(true);
        for part in [breaking, rotating, looking] {
            part.await.unwrap();
        }
        for call in calling {
            call.await.unwrap();
        }
        site.mend().await;
        pillion.set_whole_config(&config(0));
        until("nothing is under way", async || {
            let metrics = pillion.metrics().await;
            let open = ["requests_in_flight", "downstream_connections"];
            open.iter().all(|gauge| metrics.sum(gauge, &[]) == 0.0)
        })
        .await;
        sleep(SETTLE).await;
    };
    storm(WARM_UP, None).await;
    let before = Sample::of(&pillion, &load, Duration::ZERO).await;
    let mut record = Record::default();
    storm(length, Some(&mut record)).await;
    let after = Sample::of(&pillion, &load, length).await;

    let (answered, failed) = (load.answered.load(Relaxed), load.failed.load(Relaxed));
    let metrics = pillion.metrics().await;
    let counted = |name| metrics.sum(name, &[]);
    let text = format!(
        "{record}\nat rest before {before}\nat rest after  {after}\n\n{answered} calls were answered, \
         {failed} failed because their endpoint died under them\n{} changes of endpoints, {} of them \
         died; etcd was killed or frozen {} times; {} changes of live policy\n{} certificates, {} TLS \
         handshakes\n{} pages of the admin address\n{} reloads, {} events of the registry, {} attempts\n",
        site.changes.load(Relaxed),
        site.deaths.load(Relaxed),
        site.outages.load(Relaxed),
        site.policies.load(Relaxed),
        secret.rotations.load(Relaxed),
        counted("tls_handshakes_total"),
        asked.load(Relaxed),
        counted("config_reloads_total"),
        counted("source_events_total"),
        counted("attempts_total"),
    );
    println!("{text}");
    // The build may be elsewhere.
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("soak.txt"), &text).unwrap();
    assert_eq!(load.wrong.load(Relaxed), 0, "answers that were not the endpoint's");
    assert_eq!(
        secret.refusals(),
        [""; 0],
        "no certificate was replaced at the cost of a connection"
    );
    assert_eq!(counted("tls_handshake_failures_total"), 0.0);
    assert!(failed * 100 < answered, "{failed} of {answered} calls failed");
    record.judge(&before, &after);
}
