//! How a command ends that did not do what it was asked, and how that is told.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use crate::config::ConfigErrors;
use crate::telemetry::plain_lines;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The configuration cannot be used. Exit status 2.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Files say something wrong, each mistake on a line that starts with its place. Exit status 2.
    #[error("{0}")]
    Mistakes(String),
    /// What was typed cannot be used, beyond what clap sees. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// It failed while running. Exit status 1.
    #[error(transparent)]
    Failed(#[from] Box<dyn Error>),
}

impl Failure {
    /// Anything that went wrong while running.
    pub(super) fn failed(error: impl Error + 'static) -> Self {
        Self::Failed(Box::new(error))
    }

    /// Prints what went wrong to stderr, then what caused it, and gives the exit status.
    pub(super) fn report(&self) -> ExitCode {
        // A mistake in a file starts with its place, as editors expect it.
        let (status, prefix) = match self {
            Self::Config(_) | Self::Mistakes(_) => (2, ""),
            Self::Usage(_) => (2, "error: "),
            Self::Failed(_) => (1, "error: "),
        };
        note(&format!("{prefix}{self}"));
        let mut cause = self.source();
        while let Some(error) = cause {
            note(&format!("  caused by: {error}"));
            cause = error.source();
        }
        ExitCode::from(status)
    }
}

/// Prints lines to stderr.
pub(super) fn note(text: &str) {
    eprintln!("{}", plain_lines(text));
}

/// Prints text to stdout; what strangers wrote in it moves no cursor. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// As [`print()`], and says whether anybody reads on.
pub(super) fn print_on(text: impl AsRef<[u8]>) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    let text = String::from_utf8_lossy(text.as_ref());
    match stdout.write_all(plain_lines(&text).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(error)),
        Ok(()) => Ok(true),
    }
}
