//! `pillion check`: whether a file can be used.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, print};
use crate::config::{self, Overrides, Settings};

/// Check a configuration file
///
/// Prints what the file amounts to and exits 0, or prints each mistake as
/// FILE:LINE:COLUMN: what is wrong; what is allowed
/// and exits 2. Flags and variables play no part, and nothing is connected to.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(super) struct Check {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", env = "PILLION_CONFIG")]
    config: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  pillion check -c pillion.toml
  pillion check -c new.toml && mv new.toml pillion.toml    a running proxy takes it at once";

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = config::load(Some(&self.config), &Overrides::default())?;
        print(format!("{}: ok ({})\n", self.config.display(), summary(&loaded.settings)))
    }
}

fn summary(settings: &Settings) -> String {
    let Settings { listeners, sources, registers, services, routes, .. } = settings;
    let count = |number: usize, noun: &str| match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    };
    [
        count(listeners.len(), "listener"),
        count(sources.len(), "source"),
        count(registers.len(), "registration"),
        count(services.len(), "service"),
        count(routes.len(), "route"),
    ]
    .join(", ")
}
