//! The log of the process, on stderr, with a level that can be changed while it runs.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Changes what is logged. Cloning shares.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Why a level was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write off, error, warn, info, debug, trace, or MODULE=LEVEL joined by commas")]
pub struct LogLevelError(String);

/// Starts logging to stderr at `level`, once a process.
///
/// # Errors
/// `level` is not one.
pub fn start(level: &str) -> Result<LogLevel, LogLevelError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(LogLevel(handle))
}

impl LogLevel {
    /// Logs at `level` from now on.
    ///
    /// # Errors
    /// `level` is not one; nothing changes.
    pub fn set(&self, level: &str) -> Result<(), LogLevelError> {
        let filter = parse(level)?;
        self.0.reload(filter).map_err(|error| LogLevelError(error.to_string()))
    }
}

/// A bare word that is no level would be taken for a module's name, and silence the log.
fn parse(level: &str) -> Result<EnvFilter, LogLevelError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',') {
        let word = part.rsplit('=').next().unwrap_or(part);
        if !LEVELS.contains(&word) {
            return Err(LogLevelError(format!("{word:?} is not a log level")));
        }
    }
    EnvFilter::try_new(level).map_err(|error| LogLevelError(error.to_string()))
}
