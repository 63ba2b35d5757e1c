//! How a command prints what it has found.

use serde::Serialize;

use super::failure::{Failure, print};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

impl Output {
    /// Prints `found` as JSON, or as `table` shows it.
    pub(super) fn print<T: Serialize>(
        self,
        found: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::Table => print(table(found)),
            Self::Json => print(json(found)? + "\n"),
        }
    }
}

/// One line of JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(Failure::failed)
}
