//! `pillion run` and `pillion demo`: the commands that are the proxy.

use std::time::Duration;

use clap::Args;

use super::{config_flags::ConfigFlags, failure::Failure};
use crate::{
    config::{ConfigErrors, Loaded, Settings},
    telemetry::{self, LogLevel},
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
        let log = start_log(&self.log)?;
        let loaded = self.config.load()?;
        let reload = move || self.config.load().map(|loaded| loaded.settings);
        proxy::run(proxy::Program { loaded, reload: Box::new(reload), log })
    }
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        proxy::demo(Duration::from_secs(self.seconds), self.stay, start_log("warn")?)
    }
}

fn start_log(level: &str) -> Result<LogLevel, Failure> {
    telemetry::start(level).map_err(|wrong| Failure::Usage(format!("--log: {wrong}")))
}

/// PLACEHOLDER for `crate::app` and `crate::demo`, until they are part of the build. Then this module
/// goes, the `Program` above is `app::Program`, and the two calls are
/// `app::run(program, |_| (), std::future::pending()).map_err(Failure::failed)` and
/// `demo::run(length, stay, log).map_err(Failure::failed)`.
mod proxy {
    use super::{ConfigErrors, Duration, Failure, Loaded, LogLevel, Settings};

    pub(super) struct Program {
        pub(super) loaded: Loaded,
        pub(super) reload: Box<dyn Fn() -> Result<Settings, ConfigErrors>>,
        pub(super) log: LogLevel,
    }

    pub(super) fn run(program: Program) -> Result<(), Failure> {
        let Program { loaded, reload, log } = program;
        drop((loaded, reload, log));
        Err(Failure::Failed("this build has no proxy in it yet".into()))
    }

    pub(super) fn demo(length: Duration, stay: bool, log: LogLevel) -> Result<(), Failure> {
        drop((length, stay, log));
        Err(Failure::Failed("this build has no proxy in it yet".into()))
    }
}
