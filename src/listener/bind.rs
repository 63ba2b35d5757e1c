//! Listening sockets.

use std::{
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, chownat, fstat, open},
    process::{Gid, Uid},
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    config::{SocketMode, SocketPath},
    tls::Server,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A listening socket.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix domain socket, whose file is removed when this is dropped.
    Unix(UnixListener, SocketFile),
}

/// An accepted connection, not yet tied to a worker.
#[derive(Debug)]
pub enum Accepted {
    /// TCP, with TCP_NODELAY.
    Tcp(std::net::TcpStream),
    /// A Unix domain socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A connection of an application.
#[derive(Debug)]
pub struct Incoming {
    /// The connection.
    pub accepted: Accepted,
    /// The TLS that is to be spoken on it, where it is TCP; none for plaintext.
    pub tls: Option<Arc<Server>>,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: io::Error,
}

/// Opens a listening socket, to the file of which `mode` lets, if it has one.
///
/// # Errors
/// [`BindError`] names the address.
pub fn bind(address: &SocketPath, mode: SocketMode) -> Result<Bound, BindError> {
    let bound = match address {
        SocketPath::Tcp(address) => bind_tcp(*address).map(Bound::Tcp),
        SocketPath::Unix(path) => bind_unix(path, mode),
    };
    bound.map_err(|source| BindError { address: address.to_string(), source })
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path, mode: SocketMode) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    let file = SocketFile(path.to_owned());
    // Before anybody can connect, whatever the umask is.
    std::fs::set_permissions(path, Permissions::from_mode(mode.0))?;
    socket.listen(BACKLOG.cast_signed())?;
    Ok(Bound::Unix(UnixListener::from_std(socket.into())?, file))
}

/// Whoever may write to the folder may have put something else there, such as a link to a file of root's.
fn give(path: &Path, user: u32, group: u32) -> io::Result<()> {
    let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("it is no socket any more"));
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    Ok(chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

/// Whether a socket file is there that nobody listens on: what a killed process leaves behind.
fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refused
}

impl Bound {
    /// The address, with the port that the system chose.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    /// Gives the file of a Unix socket to this user and group.
    ///
    /// # Errors
    /// [`BindError`] names the address.
    pub fn give_to(&self, user: u32, group: u32) -> Result<(), BindError> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Unix(_, SocketFile(path)) => give(path, user, group)
                .map_err(|source| BindError { address: self.address(), source }),
        }
    }

    /// The address, where it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// Those of the system; after one, wait before the next call.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                stream.into_std().map(Accepted::Tcp)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.into_std().map(Accepted::Unix)
            }
        }
    }
}

/// Removes the file of a socket with the socket.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; nothing is left to do about another error while stopping.
        let _ = std::fs::remove_file(&self.0);
    }
}
