//! The etcd source: keeps the board equal to the registry, through everything that etcd may do.
//!
//! What is read is remembered as [`ranges`], which outlive any connection. A [`session`] is the work
//! over one connection to one member; when it ends, for whatever reason, the sets stay as they are and
//! the next member is tried, with a growing wait once all of them have failed.

mod credentials;
mod named;
mod ranges;
mod session;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::backoff::Backoff;
use crate::config::{EtcdSource, Mode};
use crate::formats::Layout;
use crate::registry::etcd::Members;

use super::{
    desk::{Command, Report},
    task::Task,
    trouble::Ended,
};

use credentials::Credentials;
use ranges::Ranges;

/// Whether a source lists each service at its first call. Some formats leave no choice.
pub(super) fn is_lazy(source: &EtcdSource) -> bool {
    let is_whole = || Layout::new(&source.format, "").is_some_and(|layout| layout.is_whole());
    source.mode == Mode::Lazy && !is_whole()
}

/// Works until `commands` closes.
pub(super) async fn run(
    task: &Task,
    source: EtcdSource,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let Some(layout) = Layout::new(&source.format, &source.prefix) else {
        let problem = format!("format {:?} does not exist", source.format);
        task.status.problem(&problem);
        task.report(Report::Down(task.slot, problem));
        while commands.recv().await.is_some() {}
        return;
    };
    let mut ranges = Ranges::new(layout);
    if !is_lazy(&source) {
        ranges.add_whole();
    }
    let mut credentials = Credentials::of(&source);
    let mut members = Members::new(source);
    let mut renewed = None;
    let mut backoff = task.timing.backoff();
    let mut failures = 0;
    let mut told = String::new();
    loop {
        let started = Instant::now();
        let connected = match renewed.take() {
            Some(renewed) => Some(Ok(renewed)),
            None => connect(task, &mut members, &mut ranges, &mut commands).await,
        };
        let Ended { trouble, problem } = match connected {
            None => return,
            Some(Err(ended)) => ended,
            Some(Ok(connected)) => {
                let lines = session::Lines {
                    commands: &mut commands,
                    credentials: &mut credentials,
                    members: &mut members,
                };
                match session::run(task, &mut ranges, lines, connected).await {
                    Ok(None) => return,
                    Ok(connected) => {
                        renewed = connected;
                        continue;
                    }
                    Err(ended) => ended,
                }
            }
        };
        task.status.count(trouble);
        task.status.down(&problem);
        if started.elapsed() >= task.timing.backoff_max {
            // It has worked for a while, so the other members are as good as ever.
            tracing::warn!(source = %task.name, %problem, "lost etcd, connecting again");
            backoff.reset();
            failures = 0;
            told.clear();
        } else {
            failures += 1;
            if failures < members.len() {
                tracing::debug!(source = %task.name, %problem, "trying the next member");
                continue;
            }
            failures = 0;
            // Once is enough, however long it lasts.
            if told != problem {
                tracing::warn!(source = %task.name, %problem, "etcd cannot be reached, trying on");
                told.clone_from(&problem);
            }
            task.report(Report::Down(task.slot, problem));
        }
        if !wait(task, &mut ranges, &mut commands, &mut credentials, &mut backoff).await {
            return;
        }
    }
}

/// Connects to the next member; none when `commands` closes.
async fn connect(
    task: &Task,
    members: &mut Members,
    ranges: &mut Ranges,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Option<Result<session::Connected, Ended>> {
    let connecting = members.connect();
    tokio::pin!(connecting);
    loop {
        tokio::select! {
            connected = &mut connecting => {
                return Some(connected.map_err(|error| Ended::connecting(&error)));
            }
            command = commands.recv() => note(task, ranges, command?),
        }
    }
}

/// Waits before the next attempt; false when `commands` closes. Somebody asking for a new service cuts
/// the wait short, and new credentials end it.
async fn wait(
    task: &Task,
    ranges: &mut Ranges,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    credentials: &mut Credentials,
    backoff: &mut Backoff,
) -> bool {
    let now = Instant::now();
    let mut until = now + backoff.wait();
    loop {
        tokio::select! {
            () = sleep_until(until) => return true,
            () = credentials.changed() => return true,
            command = commands.recv() => {
                let Some(command) = command else { return false };
                if matches!(command, Command::Want(_)) {
                    until = until.min(now + task.timing.on_demand);
                }
                note(task, ranges, command);
            }
        }
    }
}

/// Takes a command while there is no connection.
fn note(task: &Task, ranges: &mut Ranges, command: Command) {
    match command {
        Command::Want(service) => {
            if ranges.add(&service).is_none() {
                task.report(Report::Listed(task.slot, service));
            }
        }
        Command::Forget(service) => drop(ranges.remove(&service)),
        // Nothing to ask; the next connection takes up where this one stopped.
        Command::Check(_) => {}
    }
}
