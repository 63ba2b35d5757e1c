//! Whether a TCP connection is taken.

use std::io;

use tokio::net::{TcpStream, lookup_host};

use super::Unwell;
use crate::networks::Networks;

/// Connects to `host:port`; of a host name to the first of its addresses that takes a connection, and at
/// which `within`, if given, lets an endpoint be.
pub(super) async fn connect(address: &str, within: Option<&Networks>) -> Result<TcpStream, Unwell> {
    let connecting = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for to in lookup_host(address).await? {
            if let Some(Err(refused)) = within.map(|networks| networks.check(to)) {
                last = io::Error::new(io::ErrorKind::PermissionDenied, refused);
                continue;
            }
            match TcpStream::connect(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    connecting.await.map_err(|error| Unwell::Connect(address.to_owned(), error))
}
