//! `pillion config`: what a configuration comes to, and what there is to configure.

use clap::Args;

use super::{
    config_flags::ConfigFlags,
    failure::{Failure, print},
};
use crate::config;

/// Print the effective configuration, or the commented default one
///
/// What is printed is a file that can be used as it is. It holds no secret: passwords and keys are
/// in files of their own.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowConfig {
    /// Print every key with its documentation and its default
    #[arg(long)]
    default: bool,

    #[command(flatten)]
    config: ConfigFlags,
}

const EXAMPLES: &str = "\
Examples:
  pillion config --default > pillion.toml     a file to start from
  pillion config -c pillion.toml              what the file, the environment and the defaults make
  pillion config --etcd http://etcd:2379      what these flags make";

impl ShowConfig {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.default {
            return print(config::default_file());
        }
        print(config::effective(&self.config.load()?.settings))
    }
}
