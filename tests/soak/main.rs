//! Half an hour of everything at once: calls and streams of all kinds, endpoints that come, go and die, an
//! etcd that is killed and frozen, reloads. What the program holds afterwards is what it held before.
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
#[path = "../support/wait.rs"]
mod wait;

mod load;
mod record;
mod trouble;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
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
    let site = Arc::new(Site::start(Etcd::start().await, folder.path()).await);
    let pillion = Program::new(&site.config(0)).start().await;
    let load = Arc::new(Load::new(pillion.address()));

    let storm = async |length: Duration, each: &mut dyn FnMut(Duration) -> bool| {
        let (stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let calling = Load::call(&load, &stopped);
        let breaking = Site::trouble(&site, &stopped);
        let mut reloads = 0;
        while began.elapsed() < length {
            reloads += 1;
            pillion.set_whole_config(&site.config(reloads));
            let next = Instant::now() + Duration::from_secs(5);
            while Instant::now() < next {
                sleep(Duration::from_millis(100)).await;
                each(began.elapsed());
            }
        }
        stop.send_replace(true);
        breaking.await.unwrap();
        for call in calling {
            call.await.unwrap();
        }
        site.mend().await;
        until("nothing is under way", async || {
            let metrics = pillion.metrics().await;
            let open = ["requests_in_flight", "downstream_connections"];
            open.iter().all(|gauge| metrics.sum(gauge, &[]) == 0.0)
        })
        .await;
        sleep(SETTLE).await;
    };
    storm(WARM_UP, &mut |_| false).await;
    let before = Sample::of(&pillion, &load, Duration::ZERO);
    let mut record = Record::default();
    let step = length / 40;
    storm(length, &mut |at| {
        let due = step * u32::try_from(record.len()).unwrap() <= at;
        if due {
            record.push(Sample::of(&pillion, &load, at));
        }
        due
    })
    .await;
    let after = Sample::of(&pillion, &load, length);

    let (answered, failed) = (load.answered.load(Relaxed), load.failed.load(Relaxed));
    let metrics = pillion.metrics().await;
    let counted = |name| metrics.sum(name, &[]);
    let text = format!(
        "{record}\nat rest before {before}\nat rest after  {after}\n\n{answered} calls were answered, \
         {failed} failed because their endpoint died under them\n{} changes of endpoints, {} of them \
         died; etcd was killed or frozen {} times\n{} reloads, {} events of the registry, {} attempts\n",
        site.changes.load(Relaxed),
        site.deaths.load(Relaxed),
        site.outages.load(Relaxed),
        counted("config_reloads_total"),
        counted("source_events_total"),
        counted("attempts_total"),
    );
    println!("{text}");
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak.txt"), &text).unwrap();
    assert_eq!(load.wrong.load(Relaxed), 0, "answers that were not the endpoint's");
    assert!(failed * 100 < answered, "{failed} of {answered} calls failed");
    record.judge(&before, &after);
}
