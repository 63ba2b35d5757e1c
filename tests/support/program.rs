//! The program under test: `pillion run` in a process of its own, on free ports.
//!
//! Every behaviour test starts one. It is ready when [`Pillion::start`] returns, and ended with the
//! value; what it logged is printed if the test fails.

use std::{
    io::{BufRead, BufReader, Read},
    iter,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::admin::{self, Page};
use crate::metrics::Metrics;
use crate::wait::{SOON, until};

/// A running proxy, whose endpoints are in a file that the test may rewrite.
#[derive(Debug)]
pub(crate) struct Pillion {
    child: Child,
    folder: TempDir,
    log: Arc<Mutex<String>>,
    output: Arc<Mutex<String>>,
    /// Read until the program has closed them.
    streams: [thread::JoinHandle<()>; 2],
    listeners: Vec<String>,
    admin: String,
}

/// What to start.
#[derive(Debug, Default)]
pub(crate) struct Program {
    config: String,
    endpoints: Option<String>,
    listeners: Vec<String>,
    admin: Option<String>,
    before: Vec<String>,
    by_config: bool,
    for_all: bool,
}

impl Program {
    /// `config` is TOML, without listener and admin; without a source, too, if there are
    /// [`Self::endpoints`].
    pub(crate) fn new(config: &str) -> Self {
        Self { config: config.to_owned(), ..Self::default() }
    }

    /// Its only source is a file of these endpoints; [`endpoint`] makes one.
    pub(crate) fn endpoints(mut self, endpoints: impl IntoIterator<Item = String>) -> Self {
        self.endpoints = Some(endpoints.into_iter().collect());
        self
    }

    /// Listens there instead of on a free port of the loopback address.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listeners.push(address.to_owned());
        self
    }

    /// Listens where its configuration says.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) const fn listen_by_config(mut self) -> Self {
        self.by_config = true;
        self
    }

    /// Its configuration may be read by other users.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) const fn readable_by_all(mut self) -> Self {
        self.for_all = true;
        self
    }

    /// Is operated there instead of on a free port of the loopback address.
    pub(crate) fn admin(mut self, address: &str) -> Self {
        self.admin = Some(address.to_owned());
        self
    }

    /// Started by this command, to which the program's own command line is appended.
    pub(crate) fn by(mut self, command: &[&str]) -> Self {
        self.before = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(self) -> Pillion {
        let pillion = self.start_unready().await;
        until("the program is ready", async || pillion.get("/ready").await.status == 200).await;
        pillion
    }

    /// Starts it, and waits until it listens.
    pub(crate) async fn start_unready(mut self) -> Pillion {
        let folder = tempfile::tempdir().unwrap();
        if self.for_all {
            let for_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folder.path(), for_all).unwrap();
        }
        if let Some(endpoints) = &self.endpoints {
            std::fs::write(folder.path().join(ENDPOINTS), endpoints).unwrap();
            self.config += &format!("\n[[source]]\nkind = \"file\"\npath = {ENDPOINTS:?}\n");
        }
        std::fs::write(folder.path().join(CONFIG), &self.config).unwrap();
        if self.listeners.is_empty() && !self.by_config {
            self.listeners.push("127.0.0.1:0".to_owned());
        }
        self.before.push(env!("CARGO_BIN_EXE_pillion").to_owned());
        let mut command = Command::new(&self.before[0]);
        command.args(&self.before[1..]).arg("run").arg("-c").arg(folder.path().join(CONFIG));
        command.args(["--admin", self.admin.as_deref().unwrap_or("127.0.0.1:0"), "--workers", "2"]);
        // PILLION_TEST_LOG=debug, say, shows more of a test that fails.
        let level = std::env::var("PILLION_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        command.args(["--log", &level]);
        command.args(self.listeners.iter().flat_map(|address| ["--listen", address]));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PILLION_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, output) = (Arc::default(), Arc::default());
        let (serving, errors) = follow(child.stderr.take().unwrap(), &log);
        let streams = [errors, follow(child.stdout.take().unwrap(), &output).1];
        let Ok(Ok(line)) = tokio::time::timeout(SOON, serving).await else {
            let _ = child.kill();
            panic!("pillion does not start:\n{}", log.lock().unwrap());
        };
        let (listeners, admin) = addresses(&line).expect(&line);
        Pillion { child, folder, log, output, streams, listeners, admin }
    }
}

impl Pillion {
    /// A proxy with this configuration and these endpoints.
    pub(crate) async fn start(config: &str, endpoints: impl IntoIterator<Item = String>) -> Self {
        Program::new(config).endpoints(endpoints).start().await
    }

    /// Where applications connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0].parse().unwrap()
    }

    /// All places where applications connect.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// Where operators connect.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// A page of the admin address.
    pub(crate) async fn get(&self, path: &str) -> Page {
        admin::ask(&self.admin, "GET", path).await
    }

    /// The same with another method.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Page {
        admin::ask(&self.admin, method, path).await
    }

    /// The same with a body.
    #[allow(dead_code, reason = "tests/registration uses it")]
    pub(crate) async fn ask_with(&self, method: &str, path: &str, body: &str) -> Page {
        admin::ask_with(&self.admin, method, path, body).await
    }

    /// What it counts now.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(&self.get("/metrics").await.text)
    }

    /// Waits until what it counts is so.
    pub(crate) async fn until_metrics(&self, what: &str, so: impl Fn(&Metrics) -> bool) {
        until(what, async || so(&self.metrics().await)).await;
    }

    /// Replaces all endpoints, and waits until the proxy has read them.
    pub(crate) async fn set_endpoints(&self, endpoints: impl IntoIterator<Item = String>) {
        let reads = |metrics: &Metrics| metrics.sum("source_resyncs_total", &[]);
        let before = reads(&self.metrics().await);
        // A file that has become empty would not be believed.
        let comment = iter::once("# The endpoints of the test.\n".to_owned());
        self.write(ENDPOINTS, &comment.chain(endpoints).collect::<String>());
        self.until_metrics("the endpoints are read", |metrics| reads(metrics) > before).await;
    }

    /// Empties the configuration and the file of endpoints.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) fn empty_files(&self) {
        self.write(CONFIG, "");
        self.write(ENDPOINTS, "");
    }

    /// Replaces the configuration; the source of the endpoints stays.
    pub(crate) fn set_config(&self, config: &str) {
        let source = format!("\n[[source]]\nkind = \"file\"\npath = {ENDPOINTS:?}\n");
        self.write(CONFIG, &(config.to_owned() + &source));
    }

    /// Replaces the configuration, the sources in it too.
    #[allow(dead_code, reason = "tests/registration uses it")]
    pub(crate) fn set_whole_config(&self, config: &str) {
        self.write(CONFIG, config);
    }

    /// As careful programs write files that others read: whole, then renamed over.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// A path in the folder of its configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged this: what it counts or answers can be known before a line is read.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) async fn until_logged(&self, text: &str) {
        until(&format!("{text:?} is logged"), async || self.log().contains(text)).await;
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended, and its last words are read.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some() && self.streams.iter().all(thread::JoinHandle::is_finished)
        })
        .await;
        status.unwrap()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Memory in use now, and the most since its start, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        (bytes("VmRSS:"), bytes("VmHWM:"))
    }
}

impl Drop for Pillion {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if thread::panicking() {
            return eprintln!("--- what pillion logged ---\n{log}");
        }
        let is_mistake =
            |line: &str| line.contains("a mistake in pillion") && !line.contains("rehearsed: ");
        assert!(!log.lines().any(is_mistake), "it panicked:\n{log}");
    }
}

/// One endpoint of a services file. `keys` is TOML, such as `weight = 3`.
pub(crate) fn endpoint(service: &str, address: SocketAddr, keys: &str) -> String {
    format!("[[endpoint]]\nservice = \"{service}\"\naddress = \"{address}\"\n{keys}\n")
}

const CONFIG: &str = "pillion.toml";
const ENDPOINTS: &str = "services.toml";

/// Collects lines; tells of the one that says where the program listens.
fn follow(
    lines: impl Read + Send + 'static,
    into: &Arc<Mutex<String>>,
) -> (oneshot::Receiver<String>, thread::JoinHandle<()>) {
    let (tell, serving) = oneshot::channel();
    let (mut tell, log) = (Some(tell), Arc::clone(into));
    let reading = thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            if line.contains(" serving ")
                && let Some(tell) = tell.take()
            {
                let _ = tell.send(line.clone());
            }
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    (serving, reading)
}

/// From `... serving listeners=["127.0.0.1:4140"] admin=127.0.0.1:4191`.
fn addresses(line: &str) -> Option<(Vec<String>, String)> {
    let (listeners, admin) = line.split_once("listeners=")?.1.split_once(" admin=")?;
    Some((serde_json::from_str(listeners).ok()?, admin.trim().to_owned()))
}
