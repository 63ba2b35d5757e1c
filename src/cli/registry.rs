//! `pillion registry`: the records in etcd itself, in any format, without a proxy.
//!
//! What the commands share is here: how etcd is reached, how keys are read, and how a command that
//! goes on is ended.

mod connection;
mod copy;
mod lint;
mod ls;
mod put;
mod rm;
mod view;
mod watch;

use std::{
    future::Future,
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use crate::registry::{
    book::{Book, Scope},
    etcd::{ListLimits, Member, Position},
};

use connection::{ConnectionFlags, Place};

/// Look at, change and mend the records in etcd; needs no proxy
///
/// Connects to etcd as the proxy does, and reads and writes records of every format that it knows.
/// Reading needs no --format: each record is told by its shape. Writing does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Registry {
    #[command(flatten)]
    connection: ConnectionFlags,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry ls                                       the services in a local etcd
  pillion registry ls orders --etcd http://10.0.0.1:2379    the records of one, with their leases
  pillion registry ls -c pillion.toml                       the etcd of a configuration

`pillion registry COMMAND --help` has examples of each command.";

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Watch(watch::Watch),
    Put(put::Put),
    Rm(rm::Rm),
    Lint(lint::Lint),
    Copy(copy::Copy),
}

impl Registry {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { connection, command } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(async {
            match command {
                Command::Ls(ls) => ls.run(connection.place()?).await,
                Command::Watch(watch) => watch.run(connection.place()?).await,
                Command::Put(put) => put.run(connection.place()?).await,
                Command::Rm(rm) => rm.run(connection.place()?).await,
                Command::Lint(lint) => lint.run(connection.place()?).await,
                Command::Copy(copy) => copy.run(&connection).await,
            }
        })
    }
}

/// Keys read at most: as many as discovery reads.
const LIMITS: ListLimits = ListLimits { keys: 1_000_000, pause: Duration::from_millis(100) };

/// Reads every key of `scope`, with the member that was asked and the revision it was at.
async fn read(place: &Place, scope: Scope) -> Result<(Book, Member, Position), Failure> {
    let (member, _) = place.connect().await?;
    let mut progress = Progress::start("keys read");
    let mut keys = Vec::new();
    let list = member.list(scope.prefix().as_bytes(), LIMITS, |page| match page {
        Some(page) => {
            keys.extend(page);
            progress.tell(keys.len());
        }
        None => keys.clear(),
    });
    let list = list.await.map_err(Failure::failed)?;
    progress.end();
    if list.cut {
        eprintln!("only the first {} keys are read", LIMITS.keys);
    }
    let mut book = Book::new(scope);
    book.list(keys);
    Ok((book, member, list.position))
}

/// Says on a terminal how far something slow has come.
struct Progress {
    what: &'static str,
    began: Instant,
    shown: bool,
}

impl Progress {
    fn start(what: &'static str) -> Self {
        Self { what, began: Instant::now(), shown: false }
    }

    fn tell(&mut self, count: usize) {
        if self.began.elapsed().as_secs() >= 1 && std::io::stderr().is_terminal() {
            self.shown = true;
            eprint!("\r{count} {}", self.what);
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Ends with Ctrl-C or SIGTERM.
fn asked_to_end() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// A duration such as `30s`, more than none.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("{text:?} is not a duration such as 30s or 10m")),
    }
}
