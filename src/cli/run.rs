//! `pillion run` and `pillion demo`: the commands that are the proxy.

use std::time::Duration;

use clap::Args;

use super::{config_flags::ConfigFlags, failure::Failure};
use crate::{
    app::{self, AppError, Program},
    demo,
    telemetry::{self, LogLevelError},
};

/// Run the proxy
///
/// Applications call it on 127.0.0.1:4140, unless configured otherwise, and name the service they
/// want in `:authority`; operators ask it on 127.0.0.1:4191. SIGTERM drains and ends it; SIGHUP, or
/// a change of the file, loads the file again.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFlags,

    /// What is logged to stderr: off, error, warn, info, debug, trace, or MODULE=LEVEL,...
    #[arg(long, value_name = "LEVEL", env = "PILLION_LOG", default_value = "info")]
    #[arg(value_parser = log_level)]
    log: String,
}

const RUN_EXAMPLES: &str = "\
Examples:
  pillion run -c pillion.toml
  pillion run --etcd http://10.0.0.1:2379,http://10.0.0.2:2379 --prefix /microservices
  pillion run --listen 127.0.0.1:4140 --listen unix:/run/pillion.sock --log debug
  PILLION_ETCD=http://etcd:2379 PILLION_FORMAT=go-zero pillion run

A flag wins over its variable, a variable over the file, the file over the default.
`pillion config` prints what it comes to, `pillion config --default` every key there is.";

/// See it work: three echo servers, the proxy, and a client that says who answered
///
/// Needs nothing else: servers, a file of endpoints, proxy and client run in this process. One of
/// the servers dies and comes back on the way.
#[derive(Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub(super) struct Demo {
    /// How long the client sends calls
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Keep servers and proxy running until Ctrl-C, to look at them with `pillion services`
    #[arg(long)]
    stay: bool,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  pillion demo
  pillion demo --seconds 30
  pillion demo --stay        then, elsewhere: pillion services; pillion why echo";

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let log = telemetry::start(&self.log).map_err(Failure::failed)?;
        let loaded = self.config.load()?;
        let reload = move |said| self.config.load_again(said);
        let program = Program { loaded, reload: Box::new(reload), log };
        app::run(program, |_| {}, std::future::pending()).map_err(|error| match error {
            // To start it again in the same way would not help.
            AppError::Account(_) | AppError::Privilege(_) => Failure::Usage(error.to_string()),
            error => Failure::failed(error),
        })
    }
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        // The demo tells its story itself; only what goes wrong is logged beside it.
        let log = telemetry::start("warn").map_err(Failure::failed)?;
        demo::run(Duration::from_secs(self.seconds), self.stay, log).map_err(Failure::failed)
    }
}

fn log_level(text: &str) -> Result<String, LogLevelError> {
    telemetry::check(text).map(|()| text.to_owned())
}
