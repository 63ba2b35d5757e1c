//! Where the proxy listens: for applications, and for operators.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use crate::config::{listener_limits::ListenerLimits, tls::ListenerTls};

/// An address to listen on: TCP, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketPath {
    /// TCP; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix domain socket, created at start and removed at the end.
    Unix(PathBuf),
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that is not an address to listen on. A host name is none: it may stand for several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address to listen on; allowed: {allowed}", allowed = SocketPath::ALLOWED)]
pub struct SocketPathError(String);

impl SocketPath {
    /// Which texts are addresses to listen on. 107 bytes is what a socket address can hold.
    pub const ALLOWED: &str =
        "IP:port, such as \"127.0.0.1:4140\", or \"unix:/path\" (absolute, at most 107 bytes)";
}

impl FromStr for SocketPath {
    type Err = SocketPathError;

    fn from_str(text: &str) -> Result<Self, SocketPathError> {
        let parsed = match text.strip_prefix("unix:") {
            Some(path) => {
                (path.starts_with('/') && path.len() <= 107).then(|| Self::Unix(path.into()))
            }
            None => text.parse().ok().map(Self::Tcp),
        };
        parsed.ok_or_else(|| SocketPathError(text.to_owned()))
    }
}

/// Where operators connect, and who they are. The default is 127.0.0.1:4191, for whoever reaches that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where.
    pub address: SocketPath,
    /// Who may connect, where it is a Unix socket.
    pub mode: SocketMode,
    /// File with what requests have to carry, if anything.
    pub token_file: Option<PathBuf>,
    /// How it speaks TLS; none for plaintext, as on every Unix socket.
    pub tls: Option<ListenerTls>,
    /// Names in `host`, beside those of loopback and the address itself.
    pub hosts: Vec<String>,
}

impl AdminSettings {
    /// Whether other hosts may reach it, and nothing tells who asks.
    pub fn is_open(&self) -> bool {
        let is_far = matches!(self.address, SocketPath::Tcp(address) if !address.ip().to_canonical().is_loopback());
        let knows_peers = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        is_far && self.token_file.is_none() && !knows_peers
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: SocketPath::Tcp((Ipv4Addr::LOCALHOST, 4191).into()),
            mode: SocketMode::default(),
            token_file: None,
            tls: None,
            hosts: Vec::new(),
        }
    }
}

/// Permissions of the file of a Unix socket, 0 to 0777: whoever may write to it may connect. Default
/// 0660.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

/// One place where applications connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketPath,
    /// Who may connect, where it is a Unix socket.
    pub mode: SocketMode,
    /// How it speaks TLS; none for plaintext.
    pub tls: Option<ListenerTls>,
    /// What applications may do there.
    pub limits: Arc<ListenerLimits>,
}

impl Listener {
    /// A listener at `address`, in plaintext and with the default limits.
    pub fn at(address: SocketPath) -> Self {
        Self { address, mode: SocketMode::default(), tls: None, limits: Arc::default() }
    }
}
