//! The flags and variables that choose a configuration and win over it.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser, value_parser};

use crate::config::{self, ConfigErrors, EtcdUrl, FORMATS, Loaded, Overrides, Said, SocketPath};

/// What `run` and `config` share.
#[derive(Debug, Args)]
pub(super) struct ConfigFlags {
    /// Configuration file (TOML); without one, every key has its default
    #[arg(short, long, value_name = "FILE", env = "PILLION_CONFIG")]
    config: Option<PathBuf>,

    /// Where applications connect: IP:port or unix:/path; repeat for several
    #[arg(long, value_name = "ADDR", env = "PILLION_LISTEN", value_delimiter = ',')]
    #[arg(help_heading = OVERRIDES)]
    listen: Vec<SocketPath>,

    /// Where operators and Prometheus connect: IP:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "PILLION_ADMIN", help_heading = OVERRIDES)]
    admin: Option<SocketPath>,

    /// File that holds the token which requests to the admin address have to carry
    #[arg(long, value_name = "FILE", env = "PILLION_ADMIN_TOKEN_FILE", help_heading = OVERRIDES)]
    admin_token_file: Option<PathBuf>,

    /// Client URLs of the etcd members, for the first etcd source
    #[arg(long, value_name = "URL[,URL]", env = "PILLION_ETCD", value_delimiter = ',')]
    #[arg(help_heading = OVERRIDES)]
    etcd: Vec<EtcdUrl>,

    /// Start of the registry's keys, for the first etcd source
    #[arg(long, value_name = "PREFIX", env = "PILLION_PREFIX", help_heading = OVERRIDES)]
    prefix: Option<String>,

    /// How the registry's records are written, for the first etcd source
    #[arg(long, env = "PILLION_FORMAT", value_parser = PossibleValuesParser::new(FORMATS))]
    #[arg(help_heading = OVERRIDES)]
    format: Option<String>,

    /// Data-plane threads; 0 means one for each core
    #[arg(long, value_name = "N", env = "PILLION_WORKERS", help_heading = OVERRIDES)]
    #[arg(value_parser = value_parser!(u32).range(0..=1024))]
    workers: Option<u32>,

    /// User that the process becomes once it listens, where it is started as root
    #[arg(long, value_name = "NAME", env = "PILLION_USER", help_heading = OVERRIDES)]
    user: Option<String>,

    /// Group instead of the user's own
    #[arg(long, value_name = "NAME", env = "PILLION_GROUP", help_heading = OVERRIDES)]
    group: Option<String>,
}

const OVERRIDES: &str = "Instead of what the file says";

impl ConfigFlags {
    /// Loads the configuration.
    ///
    /// # Errors
    /// [`ConfigErrors`], with every mistake of the file.
    pub(super) fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_again(Said::default())
    }

    /// The same, where it has been loaded before.
    ///
    /// # Errors
    /// As [`config::load_again`].
    pub(super) fn load_again(&self, before: Said) -> Result<Loaded, ConfigErrors> {
        let overrides = Overrides {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            admin_token_file: self.admin_token_file.clone(),
            etcd: self.etcd.clone(),
            prefix: self.prefix.clone(),
            format: self.format.clone(),
            workers: self.workers.map(|workers| workers as usize),
            user: self.user.clone(),
            group: self.group.clone(),
        };
        config::load_again(self.config.as_deref(), &overrides, before)
    }
}
