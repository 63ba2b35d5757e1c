//! The process: threads, signals, reloads, and the order in which it stops. Wiring only.

mod accept;
mod reload;
mod stop;
mod suspects;

use std::{future::Future, io, num::NonZero, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinSet, spawn_local},
};

use stop::{Running, Signals};

use crate::{
    access_log::AccessLog,
    account::{Account, AccountError},
    admin::{self, Admin, DirectoryCollector, PolicyCollector, RegistrationCollector},
    balance::Tables,
    config::{ConfigErrors, Loaded, Said},
    descriptors::{self, Descriptors},
    discovery,
    limit::Gates,
    listener::{BindError, Bound, Door, NewestLimits, Troubles, bind},
    live::Live,
    memory::Memory,
    metrics::Metrics,
    panics::{self, Task, go_on},
    pem::PemError,
    policy::Policy,
    privileges::{self, PrivilegeError},
    proxy::Parts,
    recent::Recent,
    register::Registrations,
    telemetry::LogLevel,
    tls::Keeper,
    wards::Warden,
    worker::{Phase, Worker},
};

/// What a process runs with.
pub struct Program {
    /// The configuration it starts with.
    pub loaded: Loaded,
    /// Loads the configuration again, flags and environment included, after its file has said something or not.
    pub reload: Box<dyn Fn(Said) -> Result<Loaded, ConfigErrors>>,
    /// Changes the log.
    pub log: LogLevel,
}

/// Where a running program listens, told once everything is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Of the applications.
    pub listeners: Vec<String>,
    /// Of operators.
    pub admin: String,
}

/// Why the process ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// There is no user like the one to run as.
    #[error("user and group: {0}")]
    Account(#[from] AccountError),
    /// It cannot run as that user.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The system gave no thread, no event queue or no signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The thread of a worker has ended by a panic that nothing could catch. Connections that it had are lost,
    /// and what it held may be in any state.
    #[error("a worker has ended by a panic; its log line says where")]
    Worker,
    /// A metric of ours is not one: a mistake in the program.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until told to stop, by signal or by `stop`. `started` is called once all is bound.
///
/// # Errors
/// [`AppError`], before the first call is served; [`AppError::Worker`] also later.
pub fn run(
    program: Program,
    started: impl FnOnce(&Addresses),
    stop: impl Future<Output = ()>,
) -> Result<(), AppError> {
    panics::watch();
    // Before there is a thread, which would not have it from this one.
    privileges::harden();
    let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(control(program, started, stop))
}

/// The control thread: everything but the path of a call.
async fn control(
    program: Program,
    started: impl FnOnce(&Addresses),
    stop: impl Future<Output = ()>,
) -> Result<(), AppError> {
    let Program { loaded, reload, log } = program;
    descriptors::raise_limit();
    let settings = Arc::new(loaded.settings);
    let live = Arc::new(Live::new(Arc::clone(&settings)));
    let metrics = Metrics::new();
    metrics.tasks().add("control");
    let (phase, phases) = watch::channel(Phase::Running);

    let account = privileges::wanted(Account::find(&settings.user, &settings.group)?)?;
    // Bound first: an address in use must end the process before it has told anyone of itself.
    let admin_socket = bind(&settings.admin.address, settings.admin.mode)?;
    let listeners: Vec<Bound> = settings
        .listeners
        .iter()
        .map(|listener| bind(&listener.address, listener.mode))
        .collect::<Result<_, _>>()?;
    if let Some(account) = &account {
        for bound in listeners.iter().chain([&admin_socket]) {
            bound.give_to(account.uid.as_raw(), account.gid.as_raw())?;
        }
        privileges::give_up(account)?;
        let own = loaded.path.iter().map(|path| ("the configuration", path.clone()));
        let files = settings.files().into_iter().chain(own);
        privileges::can_use(account, files, settings.state_dir.as_deref())?;
    }
    let tls = settings.listeners.iter().map(|listener| listener.tls.as_ref());
    let mut keeper = Keeper::new(metrics.tls().clone());
    let tls = tls.map(|tls| tls.map(|tls| keeper.server(tls)).transpose());
    let tls: Vec<_> = tls.collect::<Result<_, _>>()?;
    let addresses = Addresses {
        listeners: listeners.iter().map(Bound::address).collect(),
        admin: admin_socket.address(),
    };

    let options = discovery::Options {
        state_dir: settings.state_dir.clone(),
        own: listeners.iter().chain([&admin_socket]).filter_map(Bound::tcp).collect(),
        ..Default::default()
    };
    let (directory, sources) = discovery::start_with(settings.sources.clone(), options);
    metrics.registry().register(Box::new(DirectoryCollector::new(directory.clone())?))?;
    let admin_tls = settings.admin.tls.as_ref().filter(|_| admin_socket.tcp().is_some());
    let admin_tls = admin_tls.map(|tls| keeper.admin(tls)).transpose()?;
    let clients = keeper.clients();
    spawn_local(go_on(Task::Tls, async move || keeper.run().await));
    let (mut suspects, counted) = (sources.suspects(), metrics.clone());
    let (terms, by) = (clients.clone(), Arc::clone(&live));
    spawn_local(go_on(Task::Health, async move || {
        suspects::dial_all(&mut suspects, &by, &terms, &counted).await;
    }));
    let policy = Policy::start(Arc::clone(&live));
    metrics.registry().register(Box::new(PolicyCollector::new(Arc::clone(&policy))?))?;
    let registrations = Registrations::start(&settings);
    let collector = RegistrationCollector::new(registrations.clone())?;
    metrics.registry().register(Box::new(collector))?;
    let (recent, intake) = Recent::start();
    let access_log = AccessLog::default();
    let gates = Gates::default();
    gates.set_max_in_flight(settings.max_in_flight);
    let mut warden = Warden::new(Arc::clone(&live), clients.clone(), metrics.clone());
    let memory = Memory::default();
    let newest = Arc::clone(&live);
    let most = move || newest.load().max_memory;
    let (watched, counted) = (memory.clone(), metrics.clone());
    spawn_local(go_on(Task::Memory, async move || watched.watch(&most, &counted).await));
    let parts = Parts {
        live: Arc::clone(&live),
        directory: directory.clone(),
        gates: gates.clone(),
        metrics: metrics.clone(),
        memory: memory.clone(),
        access_log,
        tables: Tables::default(),
        reports: warden.reports(),
        recent: intake,
        clients,
    };
    spawn_local(go_on(Task::Health, async move || warden.run().await));
    let (ended, mut worker_ended) = mpsc::unbounded_channel();
    let workers: Vec<_> = (0..worker_count(settings.workers))
        .map(|number| Worker::start(number, parts.clone(), phases.clone(), ended.clone()))
        .collect::<io::Result<_>>()?;
    let workers = Arc::new(workers);
    let descriptors = Descriptors::share_out();
    let (mut accepting, mut limits) = (JoinSet::new(), Vec::new());
    for ((listener, tls), configured) in listeners.into_iter().zip(tls).zip(&settings.listeners) {
        let gauge = metrics.downstream_connections(&listener.address());
        let newest_limits = NewestLimits::new(Arc::clone(&configured.limits));
        limits.push((configured.address.clone(), newest_limits.clone()));
        let door = Door::new(newest_limits, gauge, &metrics, memory.clone(), descriptors.clone());
        let troubles = Troubles::new(&metrics, &listener);
        let dealer = accept::Dealer { workers: Arc::clone(&workers), door, tls };
        accepting.spawn_local(accept::accept(
            listener,
            dealer,
            troubles,
            descriptors.clone(),
            phases.clone(),
        ));
    }

    let (drain, mut drain_asked) = mpsc::unbounded_channel();
    let admin = Admin {
        access: settings.admin.clone(),
        tls: admin_tls,
        most_connections: descriptors.of_operators(),
        live: Arc::clone(&live),
        policy: Arc::clone(&policy),
        directory: directory.clone(),
        registrations: registrations.clone(),
        metrics: metrics.clone(),
        tables: parts.tables.clone(),
        recent: recent.clone(),
        log,
        unready: Box::new({
            let phases = phases.clone();
            move || match *phases.borrow() {
                Phase::Running => Vec::new(),
                _ => vec!["draining".to_owned()],
            }
        }),
        drain: Box::new(move || {
            // The receiver is gone when the drain has begun: once is enough.
            let _ = drain.send(());
        }),
    };
    let admin = Rc::new(admin);
    spawn_local(go_on(Task::Admin, async move || admin::serve(&admin_socket, &admin).await));
    let reload = reload::Reload {
        policy: Arc::clone(&policy),
        said: loaded.said,
        path: loaded.path,
        load: reload,
        live: Arc::clone(&live),
        limits,
        directory: directory.clone(),
        sources,
        registrations: registrations.clone(),
        gates,
        metrics,
    };
    spawn_local(reload::run(reload, signal(SignalKind::hangup())?));
    spawn_local(tell_supervisor_when_ready(directory, policy));
    tracing::info!(listeners = ?addresses.listeners, admin = %addresses.admin, "serving");
    started(&addresses);

    let (terminate, interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signals = Signals { terminate, interrupt };
    let mut ending = Ok(());
    tokio::select! {
        signal = signals.next() => tracing::info!("{signal}: draining"),
        _ = drain_asked.recv() => tracing::info!("POST /drain: draining"),
        Some(()) = worker_ended.recv() => {
            ending = Err(AppError::Worker);
            tracing::error!("a worker has ended by a panic: draining, to be started again");
        }
        () = stop => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop::stop(Running { phase, registrations, accepting, workers, live }, signals).await;
    recent.end().await;
    ending
}

fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    }
}

/// systemd's `Type=notify`: ready once every source has been read, and the live policy.
async fn tell_supervisor_when_ready(directory: discovery::Directory, policy: Arc<Policy>) {
    const LOOK: Duration = Duration::from_millis(50);
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let is_read = || directory.sources().iter().all(|source| source.is_loaded());
    while !policy.has_been_read() || !is_read() {
        tokio::time::sleep(LOOK).await;
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot notify the supervisor");
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("loaded", &self.loaded).finish_non_exhaustive()
    }
}
