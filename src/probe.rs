//! How far one gets with an endpoint from this host: its name, TCP, HTTP/2.
//!
//! `pillion registry lint` and `pillion doctor` ask it. It makes no call: it says the client's part of
//! the beginning of HTTP/2 and looks at the first bytes of the answer, so that it can tell what it is
//! that answers where that is not HTTP/2.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::model::Address;
use crate::networks::{Networks, Refused};

/// The client's preface and an empty SETTINGS frame (RFC 9113 section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Length of a frame's head (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;

/// Where it ended.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The host name has no address.
    #[error("its host name cannot be resolved: {0}")]
    Name(io::Error),
    /// The host name has addresses, but none at which an endpoint may be.
    #[error("{0}")]
    Refused(Refused),
    /// Nothing listens there, or something on the way says so.
    #[error("it cannot be connected to: {0}")]
    Unreachable(io::Error),
    /// Not even TCP is answered: the packets vanish.
    #[error("it does not answer to TCP within {}", humantime::format_duration(*.0))]
    NoTcp(Duration),
    /// Connected, but HTTP/2 is not answered.
    #[error("it takes connections, and then says nothing within {}", humantime::format_duration(*.0))]
    NoSettings(Duration),
    /// It closed the connection instead of an answer.
    #[error("it takes connections and closes them")]
    Closed,
    /// It says GOAWAY at once.
    #[error("it says GOAWAY at once: it is stopping, or has too many connections")]
    GoAway,
    /// It answers in TLS.
    #[error("it speaks TLS, which its record does not say")]
    Tls,
    /// It answers in HTTP/1.
    #[error("it speaks HTTP/1, not HTTP/2")]
    Http1,
    /// It answers in something else.
    #[error("it does not speak HTTP/2; its answer begins with {0:?}")]
    Other(String),
}

/// Connects, where `networks` let an endpoint be; none of the addresses of a host name may take longer
/// than `limit`.
///
/// # Errors
/// [`ProbeError::Name`], [`ProbeError::Refused`], [`ProbeError::Unreachable`], [`ProbeError::NoTcp`].
pub async fn connect(
    address: &Address,
    networks: &Networks,
    limit: Duration,
) -> Result<TcpStream, ProbeError> {
    let addresses: Vec<_> = match address.socket() {
        Some(socket) => vec![socket],
        None => {
            let found = timeout(limit, lookup_host(address.as_str())).await;
            let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from DNS"));
            found.unwrap_or_else(|_| late()).map_err(ProbeError::Name)?.collect()
        }
    };
    let mut last = None;
    for address in addresses {
        if let Err(refused) = networks.check(address) {
            last = Some(ProbeError::Refused(refused));
            continue;
        }
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(ProbeError::Unreachable(error)),
            Err(_) => last = Some(ProbeError::NoTcp(limit)),
        }
    }
    let none = || ProbeError::Name(io::Error::other("the name has no address"));
    Err(last.unwrap_or_else(none))
}

/// Begins HTTP/2, and waits at most `limit` for the other side to do so.
///
/// # Errors
/// Those of [`ProbeError`] that are not of [`connect`].
pub async fn settings<T>(stream: &mut T, limit: Duration) -> Result<(), ProbeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = [0; FRAME_HEAD];
    let exchange = async {
        stream.write_all(HELLO).await?;
        let mut read = 0;
        while read < head.len() {
            match stream.read(&mut head[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        io::Result::Ok(read)
    };
    let read = match timeout(limit, exchange).await {
        Err(_) => return Err(ProbeError::NoSettings(limit)),
        // Whoever resets has not answered, either.
        Ok(read) => read.unwrap_or(0),
    };
    judge(&head[..read])
}

/// Both, one after the other.
///
/// # Errors
/// [`ProbeError`] of the first that fails.
pub async fn probe(
    address: &Address,
    networks: &Networks,
    limit: Duration,
) -> Result<(), ProbeError> {
    settings(&mut connect(address, networks, limit).await?, limit).await
}

/// What the first bytes of an answer are.
fn judge(head: &[u8]) -> Result<(), ProbeError> {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    match head {
        [] => Err(ProbeError::Closed),
        [_, _, _, SETTINGS, flags, 0, 0, 0, 0] if flags & 1 == 0 => Ok(()),
        [_, _, _, GOAWAY, _, 0, 0, 0, 0] => Err(ProbeError::GoAway),
        // A record of TLS: an alert, or what begins a handshake.
        [0x15 | 0x16, 3, ..] => Err(ProbeError::Tls),
        _ if head.starts_with(b"HTTP/1") => Err(ProbeError::Http1),
        _ => Err(ProbeError::Other(head.escape_ascii().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    /// What a probe finds that is answered with `answer`, and then with the end.
    async fn answered_with(answer: &'static [u8]) -> Result<(), ProbeError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; HELLO.len()]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        probe(&address, &Networks::default(), LIMIT).await
    }

    #[tokio::test]
    async fn what_answers_is_told_by_its_first_bytes() {
        assert!(answered_with(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64").await.is_ok());
        let goaway = answered_with(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").await;
        assert!(matches!(goaway, Err(ProbeError::GoAway)));
        let tls = answered_with(b"\x15\x03\x03\0\x02\x02\x46").await;
        assert!(matches!(tls, Err(ProbeError::Tls)));
        let http = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(matches!(http, Err(ProbeError::Http1)));
        assert!(matches!(answered_with(b"").await, Err(ProbeError::Closed)));
        let ssh = answered_with(b"SSH-2.0-x\r\n").await.unwrap_err().to_string();
        assert_eq!(ssh, "it does not speak HTTP/2; its answer begins with \"SSH-2.0-x\"");
    }

    #[tokio::test]
    async fn a_port_that_refuses_and_one_that_says_nothing_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().into();
        let any = Networks::default();
        let silent = probe(&address, &any, Duration::from_millis(50)).await;
        assert!(matches!(silent, Err(ProbeError::NoSettings(_))));
        drop(listener);
        assert!(matches!(probe(&address, &any, LIMIT).await, Err(ProbeError::Unreachable(_))));
    }
}
