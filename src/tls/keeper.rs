//! Reads certificates, keys and authorities again when their files change, and warns before they expire.
//!
//! The control thread runs it. What cannot be used changes nothing: what was read before stays, which a
//! line in the log tells, and a file that can be read again at last is found within a minute.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Clients, Server, server::Of};
use crate::{
    config::ListenerTls,
    metrics::TlsMetrics,
    pem::{Leaf, PemError},
    watch_file::{WatchedFile, watch},
};

/// Certificate and key are two files: who changes one is about to change the other.
const TOGETHER: Duration = Duration::from_millis(200);
/// How often dates are looked at, and files that could not be used.
const LOOK: Duration = Duration::from_secs(60);
/// How often the same certificate is warned of.
const WARN: Duration = Duration::from_secs(24 * 60 * 60);

/// Something that was read from files.
pub(super) trait Kept: fmt::Debug + Send + Sync {
    /// The files.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads them again, and goes on with what was read. What is going on is not disturbed.
    fn read_again(&self) -> Result<(), PemError>;

    /// What is in use now, and expires.
    fn dated(&self) -> Vec<Dated>;
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dated {
    pub(super) file: PathBuf,
    /// What it is for: value of the metric label `role`.
    pub(super) role: &'static str,
    pub(super) leaf: Leaf,
}

/// Hands over what is to be kept. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Keeping(mpsc::UnboundedSender<Weak<dyn Kept>>);

impl Keeping {
    /// Has `kept` read again for as long as somebody else holds it.
    pub(super) fn keep(&self, kept: Weak<dyn Kept>) {
        // Nobody listens once the process stops.
        let _ = self.0.send(kept);
    }
}

/// Makes all that speaks TLS in this process, and keeps it up to date while it runs.
#[derive(Debug)]
pub struct Keeper {
    metrics: TlsMetrics,
    keeping: Keeping,
    inbox: mpsc::UnboundedReceiver<Weak<dyn Kept>>,
    clients: Clients,
    kept: Vec<Weak<dyn Kept>>,
    /// Those whose files could not be used the last time.
    failed: Vec<Weak<dyn Kept>>,
    watched: HashSet<PathBuf>,
    changes: JoinSet<(PathBuf, WatchedFile)>,
    warned: HashMap<Dated, SystemTime>,
}

impl Keeper {
    /// Has nothing to keep yet; it counts in `metrics`.
    pub fn new(metrics: TlsMetrics) -> Self {
        let (keeping, inbox) = mpsc::unbounded_channel();
        let keeping = Keeping(keeping);
        let clients = Clients::new(metrics.clone(), keeping.clone());
        let (kept, failed) = (Vec::new(), Vec::new());
        let (watched, changes, warned) = Default::default();
        Self { metrics, keeping, inbox, clients, kept, failed, watched, changes, warned }
    }

    /// The TLS towards endpoints.
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// The TLS of a listener.
    ///
    /// # Errors
    /// [`PemError`] names the file that cannot be used.
    pub fn server(&self, settings: &ListenerTls) -> Result<Arc<Server>, PemError> {
        self.server_of(Of::Applications, settings)
    }

    /// The TLS of the admin address.
    ///
    /// # Errors
    /// [`PemError`] names the file that cannot be used.
    pub fn admin(&self, settings: &ListenerTls) -> Result<Arc<Server>, PemError> {
        self.server_of(Of::Operators, settings)
    }

    fn server_of(&self, of: Of, settings: &ListenerTls) -> Result<Arc<Server>, PemError> {
        let server = Arc::new(Server::new(of, settings, &self.metrics)?);
        let kept: Arc<dyn Kept> = Arc::<Server>::clone(&server);
        self.keeping.keep(Arc::downgrade(&kept));
        Ok(server)
    }

    /// Keeps it all up to date, for ever.
    pub async fn run(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(kept) = self.inbox.recv() => self.add(kept),
                Some(Ok(changed)) = self.changes.join_next() => self.changed(changed).await,
                _ = looks.tick() => {
                    let failed = std::mem::take(&mut self.failed);
                    self.read_again(failed, false);
                }
            }
            self.tell_dates(SystemTime::now());
        }
    }

    fn add(&mut self, kept: Weak<dyn Kept>) {
        for file in kept.upgrade().map(|kept| kept.files()).unwrap_or_default() {
            if self.watched.insert(file.clone()) {
                let watched = watch(&file);
                self.wait(file, watched);
            }
        }
        self.kept.push(kept);
    }

    fn wait(&mut self, file: PathBuf, mut watched: WatchedFile) {
        self.changes.spawn_local(async move {
            watched.changed().await;
            (file, watched)
        });
    }

    /// A file has changed, and others with it, most likely.
    async fn changed(&mut self, first: (PathBuf, WatchedFile)) {
        sleep(TOGETHER).await;
        let mut all = vec![first];
        while let Some(Ok(other)) = self.changes.try_join_next() {
            all.push(other);
        }
        let files: HashSet<PathBuf> = all.iter().map(|(file, _)| file.clone()).collect();
        // Watched before they are read: what comes after is a change of its own.
        let used = self.used();
        for (file, watched) in all {
            match used.contains(&file) {
                true => self.wait(file, watched),
                false => drop(self.watched.remove(&file)),
            }
        }
        let concerned = self.kept.iter().filter(|kept| {
            kept.upgrade().is_some_and(|kept| kept.files().iter().any(|file| files.contains(file)))
        });
        let concerned = concerned.cloned().collect();
        self.read_again(concerned, true);
    }

    fn used(&self) -> HashSet<PathBuf> {
        self.kept.iter().filter_map(Weak::upgrade).flat_map(|kept| kept.files()).collect()
    }

    /// `new`: their files have changed, which is to be told of.
    fn read_again(&mut self, concerned: Vec<Weak<dyn Kept>>, new: bool) {
        let mut told = HashSet::new();
        for weak in concerned {
            let Some(kept) = weak.upgrade() else { continue };
            match kept.read_again() {
                Ok(()) => {
                    self.metrics.read_again(true);
                    tracing::info!(files = ?kept.files(), "TLS: read again, new connections use it");
                    self.failed.retain(|failed| !failed.ptr_eq(&weak));
                }
                Err(error) => {
                    if new {
                        self.metrics.read_again(false);
                    }
                    if new && told.insert(error.to_string()) {
                        tracing::error!("TLS: {error}; what was read before stays in use");
                    }
                    if !self.failed.iter().any(|failed| failed.ptr_eq(&weak)) {
                        self.failed.push(weak);
                    }
                }
            }
        }
    }

    /// Says when certificates expire, and warns of those that will soon.
    fn tell_dates(&mut self, now: SystemTime) {
        self.kept.retain(|kept| kept.strong_count() > 0);
        let dated: HashSet<Dated> =
            self.kept.iter().filter_map(Weak::upgrade).flat_map(|kept| kept.dated()).collect();
        self.metrics.set_expiries(dated.iter().map(|dated| {
            let since = dated.leaf.not_after.duration_since(SystemTime::UNIX_EPOCH);
            (&*dated.file, dated.role, since.unwrap_or_default())
        }));
        self.warned.retain(|warned, _| dated.contains(warned));
        for dated in dated.into_iter().filter(|dated| dated.leaf.is_due(now)) {
            let warned = self.warned.get(&dated).and_then(|at| now.duration_since(*at).ok());
            if warned.is_none_or(|ago| ago >= WARN) {
                warn(&dated, now);
                self.warned.insert(dated, now);
            }
        }
    }
}

fn warn(Dated { file, role, leaf }: &Dated, now: SystemTime) {
    let (file, on) = (file.display(), humantime::format_rfc3339_seconds(leaf.not_after));
    match leaf.left(now) {
        Some(left) => {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            tracing::warn!(%file, role, "TLS: the certificate expires on {on}, in {left}: renew it");
        }
        None => tracing::error!(%file, role, "TLS: the certificate has expired on {on}: renew it"),
    }
}

/// The files that there are of these.
pub(super) fn present<'a>(files: impl IntoIterator<Item = Option<&'a Path>>) -> Vec<PathBuf> {
    files.into_iter().flatten().map(Path::to_owned).collect()
}
