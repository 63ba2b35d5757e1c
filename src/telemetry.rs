//! The log of the process, on stderr, with a level that can be changed while it runs. A line stays a line,
//! whatever is told in it.

mod plain;

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Registry,
    field::MakeExt,
    fmt::{self, FormatFields, MakeWriter, format::debug_fn},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

pub use plain::{plain, plain_lines};

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
    let lines = lines(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
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

/// One line for each event, on what `out` makes.
fn lines<S, W>(
    out: W,
) -> fmt::Layer<S, impl for<'w> FormatFields<'w> + use<S, W>, fmt::format::Format, W>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    let fields = debug_fn(|line, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(line, "{}", plain(&text)),
            name => write!(line, "{name}={}", plain(&text)),
        }
    });
    fmt::layer().with_target(false).fmt_fields(fields.delimited(" ")).with_writer(out)
}

/// Whether `level` is one, without logging anything.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn check(level: &str) -> Result<(), LogLevelError> {
    parse(level).map(drop)
}

/// `EnvFilter` alone would take a misspelt level for the name of a module, and log nothing.
fn parse(level: &str) -> Result<EnvFilter, LogLevelError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',') {
        let word = match part.split_once('=') {
            Some(("", _)) => return Err(LogLevelError(format!("{part:?} names no module"))),
            Some((_, word)) => word,
            None => part,
        };
        if !LEVELS.contains(&word) {
            return Err(LogLevelError(format!("{word:?} is not a log level")));
        }
    }
    EnvFilter::try_new(level).map_err(|error| LogLevelError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_strangers_wrote_makes_no_line_and_moves_no_cursor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = lines(Arc::new(file.reopen().unwrap())).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(log);
        tracing::subscriber::with_default(subscriber, || {
            let key = "a\u{1b}[2J\n2026-01-01 INFO all is well";
            tracing::warn!(%key, quoted = key, "rejected {key}");
        });
        let log = std::fs::read_to_string(file.path()).unwrap();
        let written = r"a\u{1b}[2J\n2026-01-01 INFO all is well";
        let expected = format!("WARN rejected {written} key={written} quoted=\"{written}\"\n");
        assert!(log.ends_with(&expected), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }

    #[test]
    fn levels_and_levels_by_module_are_taken_and_misspelt_ones_refused() {
        for good in ["info", "off", "warn,pillion=debug", "info,h2=off,pillion::discovery=trace"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "INFO ", "pillion=", "=info", "info,", "pillion=loud"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
