//! Asks whether something that serves calls is well.
//!
//! [`run`] is one probe, [`Verdict`] what many of them come to, [`watch`] both, for ever. Registration
//! watches the application beside this proxy; nothing here knows of that. A probe never takes longer
//! than its limit, and leaves nothing behind: no connection, no process.

mod exec;
mod grpc;
mod page;
mod tcp;
mod verdict;

use std::{io, time::Duration};

use tokio::time::{sleep, timeout};

pub use grpc::ask;
pub use verdict::Verdict;

use crate::backoff::jitter;
use crate::config::{HealthCheck, Probe};
use crate::descriptors;
use crate::networks::Networks;

/// Between two probes of what has not been healthy yet: it is about to be.
const AT_START: Duration = Duration::from_secs(1);

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It takes no connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    /// The answer is not one of the protocol.
    #[error("{0}")]
    Protocol(String),
    /// It says that it is not well.
    #[error("{0}")]
    Says(String),
    /// It serves gRPC, but no health service: nothing is known.
    #[error("{0}: the server has no grpc.health.v1.Health; add it, or use kind = \"tcp\"")]
    Mute(String),
    /// The command could not be started.
    #[error("cannot run /bin/sh: {0}")]
    Command(io::Error),
}

impl Unwell {
    /// Whether this process has no descriptor to ask by: nothing is known then.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Connect(_, error) | Self::Command(error) if descriptors::ran_out(error))
    }
}

/// Asks once, for at most `limit`. Dropping the future ends the probe.
///
/// # Errors
/// [`Unwell`] says why it is not well.
pub async fn run(probe: &Probe, limit: Duration) -> Result<(), Unwell> {
    run_within(None, probe, limit).await
}

/// The same of an endpoint, which is asked only at addresses where `within` lets one be.
///
/// # Errors
/// [`Unwell`] says why it is not well.
pub async fn run_within(
    within: Option<&Networks>,
    probe: &Probe,
    limit: Duration,
) -> Result<(), Unwell> {
    let asked = async {
        match probe {
            Probe::None => Ok(()),
            Probe::Grpc { address, service } => {
                let stream = tcp::connect(address.as_str(), within).await?;
                ask(stream, address, "http", service).await
            }
            Probe::Tcp(address) => tcp::connect(address.as_str(), within).await.map(drop),
            Probe::Http(url) => page::ask(url).await,
            Probe::Exec(command) => exec::run(command).await,
        }
    };
    timeout(limit, asked).await.unwrap_or(Err(Unwell::Late(limit)))
}

/// Asks for ever, and tells of each answer and what it all comes to. `verdict` is what is known
/// already.
pub async fn watch(
    check: &HealthCheck,
    verdict: Verdict,
    mut tell: impl FnMut(Verdict, Result<(), Unwell>),
) {
    if check.probe == Probe::None {
        tell(Verdict::new(Some(true)), Ok(()));
        return std::future::pending().await;
    }
    watch_by(|| run(&check.probe, check.timeout), check, verdict, tell).await;
}

async fn watch_by<F: Future<Output = Result<(), Unwell>>>(
    ask: impl Fn() -> F,
    check: &HealthCheck,
    mut verdict: Verdict,
    mut tell: impl FnMut(Verdict, Result<(), Unwell>),
) {
    let mut was_healthy = verdict.healthy() == Some(true);
    loop {
        let answer = ask().await;
        if !answer.as_ref().is_err_and(Unwell::is_ours) {
            verdict.note(answer.is_ok(), check);
        }
        was_healthy |= verdict.healthy() == Some(true);
        tell(verdict, answer);
        let wait = if was_healthy { check.interval } else { check.interval.min(AT_START) };
        sleep(jitter(wait)).await;
    }
}

#[cfg(test)]
mod tests;
