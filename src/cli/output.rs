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

/// A number and what it counts.
pub(super) fn counted(number: usize, one: &str) -> String {
    let stem = one.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    match (number, stem) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// One line of JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn what_is_counted_is_spelt_as_it_should_be() {
        assert_eq!(counted(1, "copy"), "1 copy");
        assert_eq!(counted(2, "copy"), "2 copies");
        assert_eq!(counted(0, "key"), "0 keys");
    }
}
