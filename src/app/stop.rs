//! The order in which the process stops: first nobody finds what it has registered, then nobody calls
//! it any more, then it ends.

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    live::Live,
    register::Registrations,
    worker::{Phase, Worker},
};

/// How long callers may take to be told that their calls were ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What there is to stop.
pub(super) struct Running {
    pub(super) phase: watch::Sender<Phase>,
    pub(super) registrations: Registrations,
    pub(super) accepting: JoinSet<()>,
    pub(super) workers: Arc<Vec<Worker>>,
    pub(super) live: Arc<Live>,
}

/// The signals that stop it.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
}

impl Signals {
    /// Waits for one, and says which it was.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Stops all of it. A further signal cuts everything short.
pub(super) async fn stop(running: Running, mut signals: Signals) {
    let Running { phase, registrations, accepting, workers, live } = running;
    let in_order = async {
        phase.send_replace(Phase::Leaving);
        if registrations.leave().await {
            // Those who know of them call until they have seen that they are gone.
            sleep(live.load().drain_propagation).await;
        }
        phase.send_replace(Phase::Draining);
        accepting.join_all().await;
        workers.iter().for_each(Worker::no_more);
        let limit = live.load().drain_timeout;
        tokio::select! {
            () = drained(&workers) => tracing::info!("drained"),
            () = sleep(limit) => {
                tracing::warn!(?limit, "drain_timeout passed: ending the calls that are left");
                phase.send_replace(Phase::Ending);
                let _ = timeout(LAST_WORDS, drained(&workers)).await;
            }
        }
    };
    tokio::select! {
        () = in_order => {}
        _ = signals.next() => tracing::warn!("second signal: stopping now"),
    }
    phase.send_replace(Phase::Stopped);
    workers.iter().for_each(Worker::no_more);
    drained(&workers).await;
}

/// Waits until every worker has ended.
async fn drained(workers: &[Worker]) {
    /// Workers end on threads of their own; looking is cheap, and only done while stopping.
    const LOOK: Duration = Duration::from_millis(5);
    while !workers.iter().all(Worker::has_ended) {
        sleep(LOOK).await;
    }
}
