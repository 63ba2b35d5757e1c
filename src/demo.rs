//! `pillion demo`: the whole story in one process, with nothing else installed.
//!
//! Three echo servers, a file that lists them, the proxy as it always runs, and a client that calls
//! through it. One server dies on the way and comes back.

mod client;
mod server;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use tokio::{runtime::Builder, sync::oneshot, time::Instant};

use self::{client::Client, server::Server};
use crate::{
    app::{self, Addresses, AppError, Program},
    config::{
        AdminSettings, FileSource, Listener, Loaded, Said, Settings, SocketPath, Source, SourceKind,
    },
    telemetry::LogLevel,
};

/// Name of the service, and so the authority that the client calls.
const SERVICE: &str = "echo";
/// Servers by name, with their weights.
const SERVERS: [(&str, u32); 3] = [("echo-1", 1), ("echo-2", 2), ("echo-3", 3)];
/// Which one dies.
const VICTIM: usize = 2;
/// Pause between two calls.
const PACE: Duration = Duration::from_millis(10);

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The proxy did not start.
    #[error(transparent)]
    App(#[from] AppError),
    /// A server, the file or the client's connection failed.
    #[error("demo: {0}")]
    Io(#[from] io::Error),
    /// The connection to the proxy broke.
    #[error("demo: the connection to the proxy broke: {0}")]
    Http(#[from] h2::Error),
    /// Calls failed, which the proxy is there to prevent.
    #[error("demo: {0} calls failed; please report this with the lines above")]
    Failed(u64),
}

/// Runs the demo for `length`; with `stay`, leaves all of it up until Ctrl-C.
///
/// # Errors
/// [`DemoError`].
pub fn run(length: Duration, stay: bool, log: LogLevel) -> Result<(), DemoError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let mut servers = Vec::new();
        for (name, _) in SERVERS {
            servers.push(Server::start(name, SocketAddr::from(([127, 0, 0, 1], 0)))?);
        }
        let folder = Folder::new()?;
        let file = folder.0.join("services.toml");
        fs::write(&file, list(&servers))?;
        println!("Three gRPC servers listen, and {} lists them:", file.display());
        for (server, (name, weight)) in servers.iter().zip(SERVERS) {
            println!("  {name}  {}  weight {weight}", server.address());
        }
        let proxy = Proxy::start(&file, log)?;
        let Addresses { listeners, admin } = &proxy.addresses;
        println!("pillion listens on {} for calls, on {admin} for you.\n", listeners[0]);

        let failed = story(&listeners[0], &mut servers, length).await?;
        next_steps(&listeners[0], admin, stay);
        if stay {
            tokio::signal::ctrl_c().await?;
        }
        proxy.stop()?;
        if failed > 0 { Err(DemoError::Failed(failed)) } else { Ok(()) }
    })
}

/// Calls for `length`, kills the victim after a third of it, and brings it back after two thirds.
async fn story(listener: &str, servers: &mut [Server], length: Duration) -> Result<u64, DemoError> {
    let mut client = Client::connect(listener).await?;
    let began = Instant::now();
    let mut tally = Tally::default();
    let (mut killed, mut revived) = (false, false);
    println!("A client calls `{SERVICE}` through pillion, a fresh connection for each call:\n");
    println!(
        "  {:>4}  {:>7} {:>7} {:>7}  {:>7}  {:>6}",
        "time", "echo-1", "echo-2", "echo-3", "retried", "failed"
    );
    let mut second = 1;
    while began.elapsed() < length {
        tally.add(client.call(SERVICE, "hello").await);
        if !killed && began.elapsed() >= length / 3 {
            killed = true;
            servers[VICTIM].kill().await;
            println!("  ----  echo-3 dies; its address is still in the file");
        }
        if !revived && began.elapsed() >= length * 2 / 3 {
            revived = true;
            servers[VICTIM].revive()?;
            println!("  ----  echo-3 is back");
        }
        // The last line is printed when it is over.
        if began.elapsed().as_secs() >= second && began.elapsed() < length {
            tally.print(second);
            second += 1;
        }
        tokio::time::sleep(PACE).await;
    }
    tally.print(second);
    println!(
        "\n{} calls, {} needed another endpoint, {} failed.",
        tally.calls, tally.retried_in_all, tally.failed_in_all
    );
    Ok(tally.failed_in_all)
}

/// Who answered how often, since the last line and in all.
#[derive(Default)]
struct Tally {
    answers: BTreeMap<String, u64>,
    retried: u64,
    failed: u64,
    calls: u64,
    retried_in_all: u64,
    failed_in_all: u64,
}

impl Tally {
    fn add(&mut self, answer: Result<client::Answer, String>) {
        self.calls += 1;
        match answer {
            Ok(answer) => {
                *self.answers.entry(answer.server).or_default() += 1;
                self.retried += u64::from(answer.attempt > 1);
                self.retried_in_all += u64::from(answer.attempt > 1);
            }
            Err(error) => {
                println!("  ----  a call failed: {error}");
                self.failed += 1;
                self.failed_in_all += 1;
            }
        }
    }

    fn print(&mut self, second: u64) {
        let count = |name: &str| self.answers.get(name).copied().unwrap_or(0);
        let [one, two, three] = SERVERS.map(|(name, _)| count(name));
        println!(
            "  {second:>3}s  {one:>7} {two:>7} {three:>7}  {:>7}  {:>6}",
            self.retried, self.failed
        );
        self.answers.clear();
        (self.retried, self.failed) = (0, 0);
    }
}

fn list(servers: &[Server]) -> String {
    let entry = |(server, (name, weight)): (&Server, (&str, u32))| {
        let address = server.address();
        format!(
            "[[endpoint]]\nservice = \"{SERVICE}\"\naddress = \"{address}\"\nid = \"{name}\"\nweight = {weight}\n"
        )
    };
    servers.iter().zip(SERVERS).map(entry).collect::<Vec<_>>().join("\n")
}

fn next_steps(listener: &str, admin: &str, stay: bool) {
    let url =
        if admin == "127.0.0.1:4191" { String::new() } else { format!(" --admin http://{admin}") };
    if stay {
        println!("\nAll of it stays up until Ctrl-C. In another terminal:");
    } else {
        println!("\nLeave it up with `pillion demo --stay`, then in another terminal:");
    }
    println!("  pillion services{url}                    what is known");
    println!("  pillion services echo{url}               its endpoints, weights and picks");
    println!("  pillion why echo -H 'pillion-filter: id=echo-1'{url}");
    println!("  curl http://{admin}/metrics");
    println!(
        "\nWith etcd, from your own gRPC client: target {listener}, authority = the service's name:"
    );
    println!("  pillion run --etcd http://127.0.0.1:2379");
    println!(
        "  etcdctl put echo/10.0.0.7:50051 '{{\"Addr\":\"10.0.0.7:50051\",\"Metadata\":{{\"weight\":\"100\"}}}}'"
    );
}

/// The proxy, on threads of its own, as `pillion run` runs it.
struct Proxy {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), AppError>>,
}

impl Proxy {
    fn start(file: &Path, log: LogLevel) -> Result<Self, DemoError> {
        let settings = settings(file);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let loaded = Loaded { settings, path: None, said: Said::default() };
            let again = loaded.clone();
            let program = Program { loaded, reload: Box::new(move |_| Ok(again.clone())), log };
            let started = move |addresses: &Addresses| drop(tell.send(addresses.clone()));
            app::run(program, started, async { drop(stopped.await) })
        })?;
        match told.recv() {
            Ok(addresses) => Ok(Self { addresses, stop, thread }),
            Err(_) => Err(thread.join().unwrap_or(Ok(())).err().map_or_else(
                || io::Error::other("the proxy ended before it listened").into(),
                DemoError::from,
            )),
        }
    }

    fn stop(self) -> Result<(), DemoError> {
        drop(self.stop);
        let ended = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the proxy panicked").into()));
        Ok(ended?)
    }
}

/// The defaults, but for the source; ports that are taken are replaced by free ones.
fn settings(file: &Path) -> Settings {
    let usual = Settings::default();
    let free = |wanted: &SocketPath| match wanted {
        SocketPath::Tcp(address) if std::net::TcpListener::bind(address).is_err() => {
            SocketPath::Tcp(SocketAddr::new(address.ip(), 0))
        }
        other => other.clone(),
    };
    let listeners = usual.listeners.iter().map(|listener| Listener::at(free(&listener.address)));
    Settings {
        listeners: listeners.collect(),
        admin: AdminSettings { address: free(&usual.admin.address), ..usual.admin.clone() },
        sources: vec![Source::new("demo", SourceKind::File(FileSource { path: file.to_owned() }))],
        drain_timeout: Duration::from_secs(2),
        ..usual
    }
}

/// A folder that is removed with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("pillion-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
