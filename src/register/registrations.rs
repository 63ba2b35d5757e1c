//! All registrations of the process: started, changed, reported and taken out together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

use crate::config::{Details, Settings};

use super::{registration::Registration, report::Report, spec::Spec};

/// How long a change may take to be in etcd before its sender is told that it is not.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);
/// How long a stop waits for registrations to be taken out; etcd does it when their leases run out.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// The registrations at work. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Registrations(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    /// In the order of the configuration.
    current: Vec<Registration>,
    /// All tasks, those of registrations that are being taken out too.
    tasks: JoinSet<()>,
    /// What those tasks listen to.
    former: Vec<Registration>,
    leaving: bool,
}

/// What one registration says otherwise from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Share of traffic.
    pub weight: Option<u32>,
    /// Version of the software.
    pub version: Option<String>,
    /// Failure domain.
    pub zone: Option<String>,
    /// Everything else, as a whole.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What became of a [`Change`].
#[derive(Clone, Debug)]
pub enum Changed {
    /// It is in etcd.
    Now(Report),
    /// It will be in etcd when the registration is.
    Later(Report),
}

/// Why a change is not in etcd.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No registration has this name.
    #[error("there is no registration {name:?}; there {}", there_is(names))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        names: Vec<String>,
    },
    /// The format cannot say it. Nothing has changed.
    #[error("{0}")]
    Cannot(String),
    /// It is kept and will be written, but is not yet.
    #[error("not in etcd yet, it will be written as soon as that is possible: {0}")]
    Late(String),
}

fn there_is(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        names => format!("are: {}", names.join(", ")),
    }
}

impl Registrations {
    /// Starts all of them with `tokio::spawn`, and returns at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(settings: &Settings) -> Self {
        let registrations = Self::default();
        registrations.reload(settings);
        registrations
    }

    /// Takes the registrations of a new configuration. One that is equal to a running one is not
    /// touched. One that only says something else of its instance says so at once. Any other change
    /// makes it a new one, which has taken over before the old one goes. Those that are not there any
    /// more are taken out.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn reload(&self, settings: &Settings) {
        let mut running = self.lock();
        while running.tasks.try_join_next().is_some() {}
        running.former.retain(|former| !former.has_left());
        let mut old = std::mem::take(&mut running.current);
        for register in &settings.registers {
            let Some((spec, details)) = Spec::new(register, settings) else { continue };
            let predecessor = old.iter().position(|old| old.spec.name == spec.name);
            let predecessor = predecessor.map(|at| old.remove(at));
            let registration = match predecessor {
                Some(same) if *same.spec == spec => {
                    same.configure(details);
                    same
                }
                Some(other) => {
                    let healthy = other.wish.borrow().healthy;
                    let new = running.spawn(spec, details, healthy);
                    running.tasks.spawn(other.clone().leave_after(new.clone()));
                    running.former.push(other);
                    new
                }
                None => running.spawn(spec, details, None),
            };
            running.current.push(registration);
        }
        for gone in old {
            gone.leave();
            running.former.push(gone);
        }
    }

    /// How each of them is doing, in the order of the configuration.
    pub fn reports(&self) -> Vec<Report> {
        self.lock().current.iter().map(Registration::report).collect()
    }

    /// Lets a registration say something else from now on, until the configuration of it changes.
    /// Waits until that is in etcd, a few seconds at most.
    ///
    /// # Errors
    /// [`ChangeError`]; after [`ChangeError::Late`] it is still being tried.
    pub async fn change(&self, name: &str, change: Change) -> Result<Changed, ChangeError> {
        let found = self.lock().current.iter().find(|one| *one.spec.name == *name).cloned();
        let Some(mut registration) = found else {
            let names = self.lock().current.iter().map(|one| one.spec.name.to_string()).collect();
            return Err(ChangeError::Unknown { name: name.to_owned(), names });
        };
        let details = change.applied_to(registration.wish.borrow().details.clone());
        let said = registration.spec.written(&details, 1);
        said.map_err(|wrong| ChangeError::Cannot(wrong.to_string()))?;
        let generation = registration.say(details);
        let arrived = timeout(CHANGE_LIMIT, registration.arrival_of(generation)).await;
        let report = registration.report();
        match arrived {
            Ok(true) => Ok(Changed::Now(report)),
            Ok(false) => Ok(Changed::Later(report)),
            Err(_) => {
                let problem = report.problem.unwrap_or_else(|| "etcd does not answer".to_owned());
                Err(ChangeError::Late(problem))
            }
        }
    }

    /// Takes all of them out, for good, and says whether there was one that others may know of. Waits
    /// a few seconds at most: where etcd cannot be reached they go when their leases run out.
    pub async fn leave(&self) -> bool {
        let (was_there, mut tasks) = {
            let mut running = self.lock();
            running.leaving = true;
            let all = || running.current.iter().chain(&running.former);
            let was_there = all().any(Registration::has_lease);
            all().for_each(Registration::leave);
            (was_there, std::mem::take(&mut running.tasks))
        };
        let left = timeout(LEAVE_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
        if left.is_err() {
            tracing::warn!(
                limit = ?LEAVE_LIMIT,
                "registrations could not be taken out; their leases will run out"
            );
        }
        was_there
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Starts one, which counts as `healthy` until its probes have spoken.
    fn spawn(&mut self, spec: Spec, details: Details, healthy: Option<bool>) -> Registration {
        let (registration, task) = Registration::new(spec, details, healthy);
        if self.leaving {
            registration.leave();
        }
        self.tasks.spawn(task);
        registration
    }
}

impl Change {
    fn applied_to(self, details: Details) -> Details {
        Details {
            weight: self.weight.unwrap_or(details.weight),
            version: self.version.unwrap_or(details.version),
            zone: self.zone.unwrap_or(details.zone),
            metadata: self.metadata.unwrap_or(details.metadata),
        }
    }
}
