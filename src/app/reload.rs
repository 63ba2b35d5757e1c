//! Loads the configuration again: on SIGHUP, and when its file changes.

use std::{path::PathBuf, sync::Arc};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{ConfigErrors, Settings},
    discovery,
    live::Live,
    metrics::Metrics,
    watch_file::{self, WatchedFile},
};

/// What a reload needs, and what it changes.
pub(super) struct Reload {
    pub(super) path: Option<PathBuf>,
    pub(super) load: Box<dyn Fn() -> Result<Settings, ConfigErrors>>,
    pub(super) live: Arc<Live>,
    pub(super) sources: discovery::Discovery,
    pub(super) metrics: Metrics,
}

/// Reloads for as long as the process runs. A bad file changes nothing.
pub(super) async fn run(mut reload: Reload) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "no reload on SIGHUP"),
    };
    let mut file = reload.path.as_deref().map(watch_file::watch);
    loop {
        tokio::select! {
            received = hangup.recv() => if received.is_none() { return },
            () = changed(&mut file) => {}
        }
        reload.now();
    }
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

impl Reload {
    fn now(&mut self) {
        tell_supervisor();
        let loaded = (self.load)();
        self.metrics.count_reload(loaded.is_ok());
        match loaded {
            Ok(settings) => self.apply(settings),
            Err(errors) => tracing::error!("configuration not reloaded, nothing changed: {errors}"),
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }

    fn apply(&mut self, settings: Settings) {
        let before = Arc::clone(self.live.load().settings());
        for (key, differs) in [
            ("workers", before.workers != settings.workers),
            ("listener", before.listeners != settings.listeners),
            ("admin", before.admin != settings.admin),
        ] {
            if differs {
                tracing::warn!(key, "changed in the file: takes effect at the next start");
            }
        }
        if before.sources != settings.sources {
            self.sources.reload(settings.sources.clone());
        }
        self.live.replace(Arc::new(settings));
        tracing::info!("configuration reloaded");
    }
}
