//! What is wrong with a configuration, and where.
//!
//! Reading and checking a file go on after a mistake, so that one run shows all of them.

use std::{fmt, io, ops::Range, path::PathBuf};

use super::{settings::SocketPath, token::TokenError};
use crate::account::AccountError;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what is allowed; one line.
    pub message: String,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file cannot be read at all.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file said something, and is empty now.
    #[error(
        "{}: has become empty, which is not taken for a wish; one that is to say nothing has a comment in it",
        .0.display()
    )]
    Emptied(PathBuf),
    /// The file says something wrong. Prints one line a mistake: `FILE:LINE:COLUMN: message`.
    #[error("{}", Lines { path, problems })]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Its mistakes in the order of the file, at least one.
        problems: Vec<Problem>,
    },
    /// A flag or variable names a file that gives no token.
    #[error(transparent)]
    Token(TokenError),
    /// A flag or variable opens the admin address.
    #[error("--admin: {0}")]
    OpenAdmin(OpenAdmin),
    /// There is no user like the one to run as.
    #[error("user and group: {0}")]
    Account(AccountError),
    /// A flag or variable changes an etcd source, and there is none.
    #[error(
        "{flag} changes the first etcd source, but the configuration has none; add one with --etcd"
    )]
    NoEtcdSource {
        /// The flag.
        flag: &'static str,
    },
}

/// An admin address that other hosts reach, where nothing tells who asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} lets other hosts in, and whoever is in may drain this proxy; allowed: a loopback address, \
     \"unix:/path\", or any with `token_file` in [admin], --admin-token-file, or `client_ca` in \
     [admin.tls]"
)]
pub struct OpenAdmin(pub(super) SocketPath);

struct Lines<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Problem { line, column, message }) in self.problems.iter().enumerate() {
            let newline = if at > 0 { "\n" } else { "" };
            write!(f, "{newline}{}:{line}:{column}: {message}", self.path.display())?;
        }
        Ok(())
    }
}

/// The mistakes found so far, by their offset in the text.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(usize, String)>);

impl Problems {
    /// Notes a mistake that starts where `span` does.
    pub(super) fn note(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.0.push((span.start, message.into()));
    }

    /// Whether nothing is wrong so far.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes with their places in `text`, in its order.
    pub(super) fn locate(mut self, text: &str) -> Vec<Problem> {
        self.0.sort_by_key(|(offset, _)| *offset);
        let locate = |(offset, message)| {
            let (line, column) = line_and_column(text, offset);
            Problem { line, column, message }
        };
        self.0.into_iter().map(locate).collect()
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters_and_lines_start_at_one() {
        let text = "zone = \"é\" x\nb";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find('x').unwrap()), (1, 12));
        assert_eq!(line_and_column(text, text.len() - 1), (2, 1));
        assert_eq!(line_and_column(text, usize::MAX), (2, 2));
    }

    #[test]
    fn mistakes_print_one_a_line_in_the_order_of_the_file() {
        let mut problems = Problems::default();
        problems.note(2..3, "second");
        problems.note(0..1, "first");
        let error =
            ConfigErrors::Wrong { path: "p.toml".into(), problems: problems.locate("a\nb") };
        assert_eq!(error.to_string(), "p.toml:1:1: first\np.toml:2:1: second");
    }
}
