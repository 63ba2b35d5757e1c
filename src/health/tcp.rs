//! Whether a TCP connection is taken.

use tokio::net::TcpStream;

use super::Unwell;

/// Connects to `host:port`; of a host name the first of its addresses that takes a connection.
pub(super) async fn connect(address: &str) -> Result<TcpStream, Unwell> {
    TcpStream::connect(address).await.map_err(|error| Unwell::Connect(address.to_owned(), error))
}
