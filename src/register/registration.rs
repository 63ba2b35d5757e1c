//! One registration: the handle that the process holds, and the task that it speaks to.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::config::Details;
use crate::health::{self, Verdict};
use crate::panics::{Caught, Panicked, Task};
use crate::registry::etcd::Members;

use super::{
    keeper::Keeper,
    report::{Progress, Report, State},
    spec::Spec,
    store::Etcd,
    wish::Wish,
};

/// How long one that has changed stays beside its successor, at most.
const HANDOVER: Duration = Duration::from_secs(10);
/// Wait before a registration that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The handle on one. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) spec: Arc<Spec>,
    pub(super) wish: watch::Sender<Wish>,
    progress: watch::Receiver<Progress>,
}

impl Registration {
    /// A new one, which counts as `healthy` until its probes have spoken, and its task, which ends when
    /// it has left.
    pub(super) fn new(
        spec: Spec,
        details: Details,
        healthy: Option<bool>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (wish, wanted) = watch::channel(Wish::new(details, healthy));
        let (progress, told) = watch::channel(Progress::default());
        let registration = Self { spec: Arc::new(spec), wish, progress: told };
        let task = survive(registration.clone(), wanted, Arc::new(progress));
        (registration, task)
    }

    /// How it is doing.
    pub(super) fn report(&self) -> Report {
        Report::new(&self.spec, &self.wish.borrow(), &self.progress.borrow())
    }

    /// Says what the configuration says, unless that is what it said before: then what an operator
    /// has changed since stays.
    pub(super) fn configure(&self, details: Details) {
        let configured = self.wish.borrow().configured.clone();
        if configured != details {
            self.wish.send_modify(|wish| wish.configured = details.clone());
            self.say(details);
        }
    }

    /// Says something else of the instance, and gives the number of that change.
    pub(super) fn say(&self, details: Details) -> u64 {
        let mut generation = 0;
        self.wish.send_modify(|wish| {
            wish.details = details;
            wish.generation += 1;
            generation = wish.generation;
        });
        generation
    }

    /// Waits until a change is in etcd. False when it need not be, because the registration need not.
    pub(super) async fn arrival_of(&mut self, generation: u64) -> bool {
        loop {
            if self.progress.borrow_and_update().generation >= generation {
                return true;
            }
            if !self.wish.borrow().is_wanted() || self.progress.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Takes it out, for good.
    pub(super) fn leave(&self) {
        self.wish.send_modify(|wish| wish.leaving = true);
    }

    /// Whether others may know of it.
    pub(super) fn has_lease(&self) -> bool {
        self.progress.borrow().lease.is_some()
    }

    /// Whether its task has ended.
    pub(super) fn has_left(&self) -> bool {
        self.progress.has_changed().is_err()
    }

    /// Leaves once `successor` has got somewhere: into the registry, or to the knowledge that it must
    /// not be there.
    pub(super) async fn leave_after(self, mut successor: Self) {
        let settled = async {
            let since = Instant::now();
            loop {
                let state = successor.report().state;
                let settled = !matches!(state, State::Starting | State::Registering);
                if settled || successor.progress.changed().await.is_err() {
                    tracing::debug!(name = %self.spec.name, took = ?since.elapsed(), "handed over");
                    return;
                }
            }
        };
        let _ = timeout(HANDOVER, settled).await;
        self.leave();
    }
}

/// Runs probes and keeper until the registration has left, and starts them again when one panics.
async fn survive(
    registration: Registration,
    wanted: watch::Receiver<Wish>,
    progress: Arc<watch::Sender<Progress>>,
) {
    loop {
        let store = Etcd::new(Members::new(registration.spec.etcd.clone()));
        let spec = Arc::clone(&registration.spec);
        let keeper = Keeper::new(spec, store, wanted.clone(), Arc::clone(&progress));
        // A set, because a set ends its tasks when it is dropped.
        let mut running = JoinSet::new();
        running.spawn(Caught::new(Task::Registration, keeper.run()));
        let probes = running.spawn(Caught::new(Task::Registration, probe(registration.clone())));
        loop {
            match running.join_next().await {
                Some(Ok(Err(Panicked))) => break,
                Some(Err(_)) => {}
                // The keeper has done; probes never do.
                Some(Ok(Ok(()))) => probes.abort(),
                None => return,
            }
        }
        tracing::warn!(name = %registration.spec.name, "registration ended by a panic, starting it again");
        sleep(AFTER_PANIC).await;
    }
}

/// Tells the registration what its probes say, for ever.
async fn probe(registration: Registration) {
    let check = &registration.spec.health;
    let healthy = registration.wish.borrow().healthy;
    health::watch(check, Verdict::new(healthy), |verdict, answer| {
        let (name, healthy) = (&registration.spec.name, verdict.healthy());
        registration.wish.send_if_modified(|wish| {
            wish.unwell = answer.err().map(|unwell| unwell.to_string());
            let changed = wish.healthy != healthy;
            if changed {
                let (unwell, healthy) = (wish.unwell.as_deref(), healthy.unwrap_or_default());
                tracing::info!(%name, healthy, unwell, "health has changed");
            }
            wish.healthy = healthy;
            changed
        });
    })
    .await;
}
