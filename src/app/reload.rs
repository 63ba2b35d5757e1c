//! Loads the configuration again: on SIGHUP, and when its file changes.

use std::{path::PathBuf, sync::Arc};

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;

use crate::{
    config::{ConfigErrors, Listener, Loaded, Said, Settings, SocketPath},
    discovery::{Directory, Discovery},
    limit::Gates,
    listener::NewestLimits,
    live::Live,
    metrics::Metrics,
    panics::{Task, go_on, rehearse},
    policy::Policy,
    register::Registrations,
    watch_file::{self, WatchedFile},
};

/// What a reload needs, and what it changes.
pub(super) struct Reload {
    pub(super) path: Option<PathBuf>,
    /// By the file, when it was loaded last.
    pub(super) said: Said,
    pub(super) load: Box<dyn Fn(Said) -> Result<Loaded, ConfigErrors>>,
    pub(super) live: Arc<Live>,
    /// Of each listener, in the order in which they are bound.
    pub(super) limits: Vec<(SocketPath, NewestLimits)>,
    pub(super) policy: Arc<Policy>,
    pub(super) directory: Directory,
    pub(super) sources: Discovery,
    pub(super) registrations: Registrations,
    pub(super) gates: Gates,
    pub(super) metrics: Metrics,
}

/// Reloads for as long as the process runs; the sources end with it. A bad file changes nothing.
pub(super) async fn run(mut reload: Reload, mut hangup: Signal) {
    let mut file = reload.path.as_deref().map(watch_file::watch);
    go_on(Task::Reload, async || {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => {}
                () = changed(&mut file) => {}
            }
            reload.now();
        }
    })
    .await
}

async fn changed(file: &mut Option<WatchedFile>) {
    match file {
        Some(file) => file.changed().await,
        None => std::future::pending().await,
    }
}

/// Tells systemd that a reload begins. `Type=notify-reload` takes that with the time of it only.
fn tell_supervisor() {
    let told = NotifyState::monotonic_usec_now()
        .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
    if let Err(error) = told {
        tracing::warn!(%error, "cannot notify the supervisor");
    }
}

/// What of the listeners is read at start only.
fn places(settings: &Settings) -> Vec<Listener> {
    let without_limits =
        |listener: &Listener| Listener { limits: Arc::default(), ..listener.clone() };
    settings.listeners.iter().map(without_limits).collect()
}

impl Reload {
    fn now(&mut self) {
        // Before it is ready for the first time, a reload must not say that it is.
        let was_ready = self.directory.sources().iter().all(|source| source.is_loaded());
        if was_ready {
            tell_supervisor();
        }
        rehearse("reload");
        let loaded = self.load();
        self.metrics.count_reload(loaded.is_ok());
        match loaded {
            Ok(settings) => self.apply(settings),
            Err(errors) => tracing::error!("configuration not reloaded, nothing changed: {errors}"),
        }
        if was_ready {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
    }

    fn load(&mut self) -> Result<Settings, ConfigErrors> {
        let Loaded { settings, said, .. } = (self.load)(self.said)?;
        self.said = said;
        Ok(settings)
    }

    fn apply(&mut self, settings: Settings) {
        let before = Arc::clone(self.live.load().settings());
        for (key, differs) in [
            ("workers", before.workers != settings.workers),
            ("state_dir", before.state_dir != settings.state_dir),
            ("user", before.user != settings.user),
            ("group", before.group != settings.group),
            ("listener", places(&before) != places(&settings)),
            ("admin", before.admin != settings.admin),
        ] {
            if differs {
                tracing::warn!(key, "changed in the file: takes effect at the next start");
            }
        }
        if before.sources != settings.sources {
            self.sources.reload(settings.sources.clone());
        }
        self.set_limits(&settings.listeners);
        self.registrations.reload(&settings);
        self.gates.set_max_in_flight(settings.max_in_flight);
        self.policy.load(settings);
        tracing::info!("configuration reloaded");
    }

    /// Of two listeners with the same address, whose ports the system has chosen, the first is the first.
    fn set_limits(&self, listeners: &[Listener]) {
        let mut listeners: Vec<_> = listeners.iter().collect();
        for (address, limits) in &self.limits {
            let of_address = |listener: &&Listener| listener.address == *address;
            if let Some(at) = listeners.iter().position(of_address) {
                limits.set(Arc::clone(&listeners.remove(at).limits));
            }
        }
    }
}
