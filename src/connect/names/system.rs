//! Whom the system says to ask for addresses, as `resolv.conf` and `hosts` have it now.
//!
//! [`super::Names`] looks here when a name is dialled, and makes a new resolver when either file has
//! changed. Looking costs two `stat`s at most once a second, and needs neither a task nor a thread. Of
//! a file that is being written the last look wins.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use hickory_resolver::{
    Hosts, Resolver, TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    system_conf::parse_resolv_conf,
};
use tokio::time::{Duration, Instant};

use crate::watch_file::Look;

/// Least time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The two files, and when they were looked at.
pub(super) struct System {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    /// Where name servers listen.
    port: u16,
    seen: Option<[Option<Look>; 2]>,
    /// Not before then is looked again.
    pub(super) look_at: Instant,
}

impl System {
    /// The files of the host. Reads nothing yet.
    pub(super) fn of_host() -> Self {
        Self::new("/etc/resolv.conf".into(), "/etc/hosts".into(), 53)
    }

    pub(super) fn new(resolv_conf: PathBuf, hosts: PathBuf, port: u16) -> Self {
        Self { resolv_conf, hosts, port, seen: None, look_at: Instant::now() }
    }

    /// Whether the files differ from what they were when this last said so. True at first.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK;
        let look = Some([Look::at(&self.resolv_conf), Look::at(&self.hosts)]);
        let changed = self.seen != look;
        self.seen = look;
        changed
    }

    /// A resolver that asks as the files say.
    ///
    /// # Errors
    /// What is wrong with `resolv.conf`, such as that it names no server. Without `hosts` there are none.
    pub(super) fn resolver(&self) -> io::Result<TokioResolver> {
        let text = std::fs::read(&self.resolv_conf)?;
        let (mut config, options) = parse_resolv_conf(text).map_err(io::Error::other)?;
        for connection in config.name_servers.iter_mut().flat_map(|server| &mut server.connections)
        {
            connection.port = self.port;
        }
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = tuned(options);
        let mut resolver = builder.build().map_err(io::Error::other)?;
        let mut hosts = Hosts::default();
        match File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.hosts.display(), %error, "cannot be read"),
        }
        resolver.set_hosts(Arc::new(hosts));
        Ok(resolver)
    }
}

/// What a call can wait for: its whole connect is given a second by default.
fn tuned(mut options: ResolverOpts) -> ResolverOpts {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = options.timeout.min(Duration::from_millis(400));
    // Kept by the names instead.
    options.cache_size = 0;
    // Read here instead.
    options.use_hosts_file = ResolveHosts::Never;
    options
}
