//! How a registration is doing, as reports and metrics show it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::config::Details;
use crate::registry::etcd::LeaseId;

use super::{claim::Taken, spec::Spec, wish::Wish};

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The probes have not decided yet.
    Starting,
    /// The probes say that it must not be in the registry.
    Unhealthy,
    /// It shall be in the registry, and is not, or not for sure.
    Registering,
    /// It is in the registry, under a lease that is kept alive.
    Registered,
    /// Its address is in the registry, under the lease of another writer of the same key.
    Shared,
    /// Another address is in the registry under its key.
    Contested,
    /// It goes, because the process stops.
    Leaving,
}

impl State {
    /// All states, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Unhealthy,
        Self::Registering,
        Self::Registered,
        Self::Shared,
        Self::Contested,
        Self::Leaving,
    ];

    /// Lower-case name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Unhealthy => "unhealthy",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Shared => "shared",
            Self::Contested => "contested",
            Self::Leaving => "leaving",
        }
    }

    /// Whether others find the address.
    pub const fn is_found(self) -> bool {
        matches!(self, Self::Registered | Self::Shared)
    }
}

/// How a registration was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its lease was gone.
    Lease,
    /// Somebody deleted its key.
    Deleted,
    /// Somebody wrote its key.
    Overwritten,
}

impl Loss {
    /// All of them, in the order of [`Report::losses`].
    pub const ALL: [Self; 3] = [Self::Lease, Self::Deleted, Self::Overwritten];

    /// Lower-case name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Deleted => "deleted",
            Self::Overwritten => "overwritten",
        }
    }
}

impl From<Taken> for Loss {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Deleted => Self::Deleted,
            Taken::Overwritten => Self::Overwritten,
        }
    }
}

/// What a keeper tells of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// What it makes of what it found, as long as the registration is wanted.
    pub(super) standing: State,
    pub(super) key: Option<String>,
    pub(super) lease: Option<LeaseId>,
    /// When the lease may be gone, unless it is kept alive.
    pub(super) until: Option<Instant>,
    pub(super) confirmed: Option<Instant>,
    /// What is wrong now.
    pub(super) problem: Option<String>,
    /// What was wrong last, and when.
    pub(super) last_error: Option<(String, Instant)>,
    pub(super) started: Instant,
    /// [`Wish::generation`] that is in etcd.
    pub(super) generation: u64,
    pub(super) writes: u64,
    pub(super) failures: u64,
    pub(super) losses: [u64; 3],
}

impl Progress {
    /// Says that something is wrong.
    pub(super) fn wrong(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            self.last_error = Some((problem.clone(), Instant::now()));
            self.problem = Some(problem);
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            standing: State::Registering,
            key: None,
            lease: None,
            until: None,
            confirmed: None,
            problem: None,
            last_error: None,
            started: Instant::now(),
            generation: 0,
            writes: 0,
            failures: 0,
            losses: [0; 3],
        }
    }
}

/// One registration, as it is now.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Service.
    pub service: String,
    /// What others dial.
    pub address: String,
    /// Source whose registry it is in.
    pub source: Arc<str>,
    /// Format of the record.
    pub format: String,
    /// What it says of the instance, as wanted.
    pub details: Details,
    /// Where it stands.
    pub state: State,
    /// Its key, once there is one.
    pub key: Option<String>,
    /// Its lease, while it has one.
    pub lease: Option<LeaseId>,
    /// For how long the lease lives on at least, were it not kept alive any more.
    pub lease_left: Option<Duration>,
    /// What is wrong now; none while it is in order.
    pub problem: Option<String>,
    /// What was wrong with etcd or the key last, and how long ago that began.
    pub last_error: Option<(String, Duration)>,
    /// Since etcd confirmed it last: key and lease.
    pub age: Option<Duration>,
    /// Since it was started.
    pub up: Duration,
    /// What the probes say; none as long as they have not decided.
    pub healthy: Option<bool>,
    /// Times that the key was written.
    pub writes: u64,
    /// Times that etcd did not do what it was asked.
    pub failures: u64,
    /// Times that it was found to be gone, by [`Loss::ALL`].
    pub losses: [u64; 3],
}

impl Report {
    pub(super) fn new(spec: &Spec, wish: &Wish, progress: &Progress) -> Self {
        let now = Instant::now();
        let lease_left = progress.until.map(|until| until.saturating_duration_since(now));
        let state = match wish.healthy {
            _ if wish.leaving => State::Leaving,
            None => State::Starting,
            Some(false) => State::Unhealthy,
            // Nobody has heard of the lease for longer than it lives.
            Some(true) if lease_left.is_none_or(|left| left.is_zero()) => State::Registering,
            Some(true) => progress.standing,
        };
        let problem = match wish.healthy {
            Some(true) => progress.problem.clone(),
            _ => wish.unwell.clone().or_else(|| progress.problem.clone()),
        };
        Self {
            name: Arc::clone(&spec.name),
            service: spec.service.to_string(),
            address: spec.address().to_owned(),
            source: Arc::clone(&spec.source),
            format: spec.format.clone(),
            details: wish.details.clone(),
            state,
            key: progress.key.clone(),
            lease: progress.lease,
            lease_left,
            problem,
            last_error: progress.last_error.clone().map(|(error, at)| (error, now - at)),
            age: progress.confirmed.map(|confirmed| now.duration_since(confirmed)),
            up: now.duration_since(progress.started),
            healthy: wish.healthy,
            writes: progress.writes,
            failures: progress.failures,
            losses: progress.losses,
        }
    }
}
