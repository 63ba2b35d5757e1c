//! Settings known to be usable: what the rest of the program reads.

mod files;
mod listener;
mod route;

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

pub use listener::{AdminSettings, Listener, SocketMode, SocketPath, SocketPathError};
pub use route::{
    Action, Branch, DirectResponse, Fault, HeaderChanges, PathMatch, Percent, Route, RouteMatch,
    Split, ValueMatch,
};

use super::HashOn;
use super::eject::{Eject, EndpointHealth};
use super::limits::Limits;
use super::register::Register;
use super::retry::Retry;
use super::tls::EndpointTls;
use crate::model::{Selectors, ServiceName};
use crate::networks::Networks;

/// Everything that one configuration says, checked. The default is what an empty file says, but
/// for [`Node::id`], which loading sets to the host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Data-plane threads; 0 means one for each core. Read at start only.
    pub workers: usize,
    /// Longest time that a drain waits for calls in flight. Default 30 s.
    pub drain_timeout: Duration,
    /// Time between taking registrations out and refusing calls. Default 1 s.
    pub drain_propagation: Duration,
    /// Calls in flight through this proxy, 0 for any number.
    pub max_in_flight: u32,
    /// Memory that the process may use, in bytes. Default 512 MiB.
    pub max_memory: u64,
    /// One line a call on stdout, or none.
    pub access_log: AccessLog,
    /// Folder that keeps the last sets of etcd sources, if any. Read at start only.
    pub state_dir: Option<PathBuf>,
    /// User to become at the start, as it is written; empty to stay. Read at start only.
    pub user: String,
    /// Group instead of the user's own; empty for that. Read at start only.
    pub group: String,
    /// Whom this proxy speaks for.
    pub node: Node,
    /// Where applications connect. Read at start only.
    pub listeners: Vec<Listener>,
    /// Where operators and Prometheus connect. Read at start only.
    pub admin: AdminSettings,
    /// Where endpoints are learned from, in the order of precedence.
    pub sources: Vec<Source>,
    /// What is put into the registries of sources.
    pub registers: Vec<Register>,
    /// Policy of a service that has none of its own.
    pub defaults: Arc<Policy>,
    /// Policies of single services.
    pub services: HashMap<ServiceName, Arc<Policy>>,
    /// Routes; the first that matches wins.
    pub routes: Vec<Route>,
    /// Where policy beside this one is; none for nowhere.
    pub live_policy: Option<LivePolicy>,
}

impl Settings {
    /// Policy of `service`: its own, else the defaults.
    pub fn policy(&self, service: &ServiceName) -> &Arc<Policy> {
        self.services.get(service).unwrap_or(&self.defaults)
    }

    /// The etcd of the live policy; none where there is none.
    pub fn live_policy_etcd(&self) -> Option<(&EtcdSource, &LivePolicy)> {
        let place = self.live_policy.as_ref()?;
        let source = self.sources.iter().find(|source| source.name == place.source)?;
        match &source.kind {
            SourceKind::Etcd(etcd) => Some((etcd, place)),
            SourceKind::File(_) => None,
        }
    }

    /// Where it says that this proxy listens, as far as that is known before it does.
    pub fn own_addresses(&self) -> Arc<[SocketAddr]> {
        let listeners = self.listeners.iter().map(|listener| &listener.address);
        let tcp = |address: &SocketPath| match address {
            SocketPath::Tcp(address) => Some(*address).filter(|address| address.port() != 0),
            SocketPath::Unix(_) => None,
        };
        listeners.chain([&self.admin.address]).filter_map(tcp).collect()
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| *source.name == *name)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = |port| SocketPath::Tcp((Ipv4Addr::LOCALHOST, port).into());
        Self {
            workers: 0,
            drain_timeout: Duration::from_secs(30),
            drain_propagation: Duration::from_secs(1),
            max_in_flight: 0,
            max_memory: 512 << 20,
            access_log: AccessLog::default(),
            state_dir: None,
            user: String::new(),
            group: String::new(),
            node: Node::default(),
            listeners: vec![Listener::at(loopback(4140))],
            admin: AdminSettings::default(),
            sources: vec![Source::new(
                Source::DEFAULT_NAME,
                SourceKind::Etcd(EtcdSource::default()),
            )],
            registers: Vec::new(),
            defaults: Arc::default(),
            services: HashMap::new(),
            routes: Vec::new(),
            live_policy: None,
        }
    }
}

/// Whom this proxy speaks for; sent upstream as `pillion-caller*`, where not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Service that the application beside this proxy is.
    pub service: String,
    /// Instance; default the host name.
    pub id: String,
    /// Cluster.
    pub cluster: String,
    /// Failure domain.
    pub zone: String,
    /// Environment, such as `prod`.
    pub env: String,
}

/// Form of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Text,
}

/// A place where endpoints are learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name in metrics, reports and selectors; unique.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SourceKind,
    /// Where its endpoints may be.
    pub networks: Networks,
}

impl Source {
    /// A source whose endpoints may be anywhere but where nobody means one.
    pub fn new(name: impl Into<Arc<str>>, kind: SourceKind) -> Self {
        Self { name: name.into(), kind, networks: Networks::default() }
    }

    /// Name of a source that is given none; of a file source, [`Source::DEFAULT_FILE_NAME`].
    pub const DEFAULT_NAME: &str = "main";
    /// Name of a file source that is given none.
    pub const DEFAULT_FILE_NAME: &str = "file";
}

/// The kinds of source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Records under a prefix of etcd.
    Etcd(EtcdSource),
    /// A TOML file of endpoints.
    File(FileSource),
}

/// Records under a prefix of etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSource {
    /// Client URLs of the members, at least one.
    pub endpoints: Vec<String>,
    /// Key prefix of the registry, such as `/microservices`; may be empty.
    pub prefix: String,
    /// Name of the record format, or `auto`.
    pub format: String,
    /// List a service at its first call, or the whole prefix at start.
    pub mode: Mode,
    /// What to do with a confirmed empty list.
    pub empty: EmptyPolicy,
    /// Where more than this part of a service, in percent, vanishes at once, its endpoints are dialled
    /// before they go; none for never.
    pub brake: Option<u8>,
    /// How long an endpoint that vanished like that, and answers, is kept.
    pub brake_hold: Duration,
    /// User name, empty for none.
    pub username: String,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificates of the authorities that signed the members', PEM; none for the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
}

impl Default for EtcdSource {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: String::new(),
            format: "auto".to_owned(),
            mode: Mode::default(),
            empty: EmptyPolicy::default(),
            brake: Some(50),
            brake_hold: Duration::from_secs(300),
            username: String::new(),
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl fmt::Debug for EtcdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdSource")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("format", &self.format)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// A TOML file of endpoints, read again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// Where it is; absolute, since what the file says starts at the file's own folder.
    pub path: PathBuf,
}

/// When an etcd source learns of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// At its first call; dropped after ten idle minutes.
    #[default]
    Lazy,
    /// The whole prefix at start.
    Eager,
}

/// What a confirmed empty list means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyPolicy {
    /// The service has no endpoint.
    #[default]
    Serve,
    /// The last non-empty set stays.
    Keep,
}

/// How calls of one service are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Which endpoints may be chosen.
    pub filter: Arc<Selectors>,
    /// Where the connection comes from.
    pub connection: Connection,
    /// When an endpoint counts as connected.
    pub ready: Ready,
    /// Limit of TCP, TLS and `ready` together. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a connected host may give no sign of life, 1 s to 1 h. Default 20 s.
    pub host_timeout: Duration,
    /// Attempts in all, at least 1. Default 3.
    pub attempts: u32,
    /// Upper bound of a call, none for unlimited.
    pub timeout: Option<Duration>,
    /// Time until the answer begins that makes a call a slow one; none for never. Default 1 s.
    pub slow_call: Option<Duration>,
    /// How many calls are let through; none where nothing is limited.
    pub limits: Option<Arc<Limits>>,
    /// When a call is tried again that an endpoint may have worked on.
    pub retry: Retry,
    /// Which zone goes first.
    pub zone_preference: ZonePreference,
    /// How long a new endpoint takes to get its whole weight; zero for no time.
    pub slow_start: Duration,
    /// Most endpoints used of the service; 0 for all.
    pub subset: u32,
    /// What `ring_hash` and `maglev` take the key of a call from.
    pub hash_on: HashOn,
    /// Time in which `peak_ewma` forgets; positive. Default 10 s.
    pub peak_ewma_decay: Duration,
    /// Share of the endpoints below which those that are not well are used, too. Default 50 %.
    pub panic_threshold: Percent,
    /// When endpoints are left out for how their calls ended.
    pub eject: Arc<Eject>,
    /// How endpoints are asked whether they are well.
    pub health: Arc<EndpointHealth>,
    /// How endpoints are spoken to.
    pub tls: Arc<EndpointTls>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            filter: Arc::default(),
            connection: Connection::default(),
            ready: Ready::default(),
            connect_timeout: Duration::from_secs(1),
            host_timeout: Duration::from_secs(20),
            attempts: 3,
            timeout: None,
            slow_call: Some(Duration::from_secs(1)),
            limits: None,
            retry: Retry::default(),
            zone_preference: ZonePreference::default(),
            slow_start: Duration::ZERO,
            subset: 0,
            hash_on: HashOn::default(),
            peak_ewma_decay: Duration::from_secs(10),
            panic_threshold: Percent::of(50),
            eject: Arc::default(),
            health: Arc::default(),
            tls: Arc::default(),
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// By weight alone.
    WeightedRandom,
    /// In turn, by weight, evenly spread (smooth).
    RoundRobin,
    /// Two by weight, then the one with fewer calls in flight for its weight.
    #[default]
    P2c,
    /// Two by weight, then the one with less latency times calls in flight.
    PeakEwma,
    /// By a key of the call, on a hash ring.
    RingHash,
    /// By a key of the call, in a Maglev table.
    Maglev,
}

impl Balance {
    /// Name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeightedRandom => "weighted_random",
            Self::RoundRobin => "round_robin",
            Self::P2c => "p2c",
            Self::PeakEwma => "peak_ewma",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
        }
    }

    /// Whether it goes by how long endpoints take to answer.
    pub const fn is_by_latency(self) -> bool {
        matches!(self, Self::PeakEwma)
    }

    /// Whether calls with the same key go to the same endpoint.
    pub const fn is_by_key(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// Which zone goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZonePreference {
    /// None.
    #[default]
    None,
    /// That of this proxy, while it can carry its share.
    Prefer,
}

/// Where the connection of a call comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// One connection a call.
    #[default]
    Fresh,
    /// One connection a call, connected ahead.
    Warm,
    /// Shared connections.
    Pooled,
}

/// When an endpoint counts as connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// Once its HTTP/2 SETTINGS arrived.
    #[default]
    Settings,
    /// Once TCP (and TLS) is established.
    Tcp,
}

/// Where live policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePolicy {
    /// Name of the etcd source whose etcd it is.
    pub source: Arc<str>,
    /// Start of the keys, without a slash at the end.
    pub prefix: String,
}

impl LivePolicy {
    /// Start of the keys, where nothing else is said.
    pub const DEFAULT_PREFIX: &str = "/pillion/policy";
}
