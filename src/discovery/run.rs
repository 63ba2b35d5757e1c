//! Starts the sources, and exchanges them when the configuration changes.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    config::{EmptyPolicy, Source, SourceKind},
    panics::{self, Caught, go_on},
};

use super::{
    Timing,
    board::{Board, Seat, Slot},
    brake::Brake,
    desk::{Desk, Peer, Reach, Report},
    directory::Directory,
    etcd,
    shared::{Shared, Suspect},
    state::Store,
    status::Status,
    task::Task,
};

/// The sources at work. Dropping it ends them; the [`Directory`] then keeps what it has.
#[derive(Debug)]
pub struct Discovery {
    directory: Directory,
    timing: Timing,
    state_dir: Option<PathBuf>,
    own: Arc<[SocketAddr]>,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedSender<Report>,
    running: Vec<Running>,
    next: u64,
    /// All tasks; dropping the set ends them.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    source: Source,
    slot: Slot,
    status: Arc<Status>,
    /// None between being listed and being spawned.
    task: Option<AbortHandle>,
}

/// Starts `sources` with `tokio::spawn` on the runtime this is called on. They are in the order of
/// precedence: of two that know one address of a service the first wins.
///
/// Returns at once. Until a source has been read, [`SourceStatus`](super::SourceStatus) says so.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(sources: Vec<Source>) -> (Directory, Discovery) {
    start_with(sources, Options::default())
}

/// What discovery starts with, beside its sources.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder that keeps the last sets, for a start without etcd; none keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Where this proxy listens, which is no endpoint.
    pub own: Arc<[SocketAddr]>,
    /// Durations, for tests.
    pub timing: Timing,
}

impl From<Timing> for Options {
    fn from(timing: Timing) -> Self {
        Self { timing, ..Self::default() }
    }
}

/// As [`start`], with options.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start_with(sources: Vec<Source>, options: impl Into<Options>) -> (Directory, Discovery) {
    let Options { state_dir, own, timing } = options.into();
    let directory = Directory::default();
    let (questions, mut asked) = mpsc::unbounded_channel();
    let (reports, mut reported) = mpsc::unbounded_channel();
    directory.connect(questions);
    let shared = Arc::new(Shared::new(Board::new(directory.clone(), timing.burst)));
    let mut desk = Desk::new(directory.clone(), Arc::clone(&shared), timing.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let task = panics::Task::Discovery;
        while Caught::new(task, desk.run(&mut asked, &mut reported)).await.is_err() {
            panics::pause(task).await;
        }
    });
    let publisher = Arc::clone(&shared);
    tasks.spawn(go_on(panics::Task::Discovery, async move || publisher.publish_later().await));
    let mut discovery = Discovery {
        directory: directory.clone(),
        timing,
        state_dir,
        own,
        shared,
        reports,
        running: Vec::new(),
        next: 0,
        tasks,
    };
    discovery.reload(sources);
    (directory, discovery)
}

impl Discovery {
    /// Endpoints of which somebody has to find out whether they answer, from now on. Discovery itself
    /// cannot: how an endpoint is connected is its callers' business. Those that nobody looks at are
    /// kept, and used where nothing else is left.
    pub fn suspects(&self) -> mpsc::UnboundedReceiver<Suspect> {
        self.shared.suspects()
    }

    /// Takes the sources of a new configuration. One that is equal to a running one goes on. What one
    /// that has gone or changed had to say stays in use until those that are new have spoken, so that
    /// no service is empty in between.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn reload(&mut self, sources: Vec<Source>) {
        // Ended tasks of earlier configurations.
        while self.tasks.try_join_next().is_some() {}
        let mut old = std::mem::take(&mut self.running);
        for source in sources {
            let same = old.iter().position(|running| running.source == source);
            let running = same.map(|at| old.remove(at)).unwrap_or_else(|| self.prepare(source));
            self.running.push(running);
        }
        for running in old {
            if let Some(task) = running.task {
                task.abort();
            }
        }

        let statuses = self.running.iter().map(|running| Arc::clone(&running.status)).collect();
        let lazy = self.running.iter().any(|running| is_lazy(&running.source));
        self.directory.set_sources(statuses, lazy);
        let seats = self.running.iter().map(|running| seat(running, &self.own)).collect();
        self.shared.update(|board| board.seat(seats));
        let peers = self.running.iter().map(peer).collect();
        // The desk ends with this value, not before it.
        let _ = self.reports.send(Report::Peers(peers));

        for running in self.running.iter_mut().filter(|running| running.task.is_none()) {
            let task = Task {
                name: Arc::clone(&running.source.name),
                slot: running.slot,
                status: Arc::clone(&running.status),
                timing: self.timing.clone(),
                shared: Arc::clone(&self.shared),
                reports: self.reports.clone(),
            };
            let folder = self.state_dir.as_deref();
            let store = folder.and_then(|folder| Store::of(folder, &running.source));
            running.task = Some(self.tasks.spawn(task.run(running.source.clone(), store)));
        }
    }

    fn prepare(&mut self, source: Source) -> Running {
        let slot = Slot(self.next);
        self.next += 1;
        let status = Arc::new(Status::new(Arc::clone(&source.name)));
        Running { source, slot, status, task: None }
    }
}

fn seat(running: &Running, own: &Arc<[SocketAddr]>) -> Seat {
    Seat {
        slot: running.slot,
        status: Arc::clone(&running.status),
        lazy: is_lazy(&running.source),
        keep: matches!(&running.source.kind, SourceKind::Etcd(etcd) if etcd.empty == EmptyPolicy::Keep),
        brake: match &running.source.kind {
            SourceKind::Etcd(etcd) => Brake { share: etcd.brake, hold: etcd.brake_hold },
            // Whoever edits a file means it.
            SourceKind::File(_) => Brake::default(),
        },
        networks: Arc::new(running.source.networks.listening_at(own)),
        successors: None,
        complete: false,
    }
}

fn peer(running: &Running) -> Peer {
    Peer {
        slot: running.slot,
        name: Arc::clone(&running.source.name),
        lazy: is_lazy(&running.source),
        reach: Reach::Unknown,
        saved: None,
        restored: false,
        commands: None,
    }
}

fn is_lazy(source: &Source) -> bool {
    matches!(&source.kind, SourceKind::Etcd(source) if etcd::is_lazy(source))
}
