//! A connection to an endpoint, with TLS or without.

use std::{
    cell::OnceCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::Failure;

/// A connection to an endpoint.
#[derive(Debug)]
pub enum Stream {
    /// Plaintext.
    Plain(TcpStream),
    /// TLS, once the handshake is over.
    Tls(Box<Encrypted>),
}

/// The TLS one.
#[derive(Debug)]
pub struct Encrypted {
    inner: TlsStream<TcpStream>,
    failure: Rc<OnceCell<Failure>>,
}

impl Encrypted {
    pub(super) fn new(inner: TlsStream<TcpStream>) -> Self {
        Self { inner, failure: Rc::default() }
    }

    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.inner.get_ref().1.handshake_kind()
    }
}

impl Stream {
    /// What it runs on.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.inner.get_ref().0,
        }
    }

    /// What the peer has against us, should it say so: in TLS 1.3 it does after the handshake is over
    /// for us. None in plaintext.
    pub fn failure(&self) -> Option<Rc<OnceCell<Failure>>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(Rc::clone(&tls.failure)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl Encrypted {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        Poll::Ready(read.or_else(|error| match error.kind() {
            // Without a `close_notify` before it. HTTP/2 tells by itself whether anything is missing.
            io::ErrorKind::UnexpectedEof => Ok(()),
            io::ErrorKind::InvalidData => {
                let failure = self.failure.get_or_init(|| Failure::of(&error));
                Err(io::Error::new(error.kind(), format!("TLS: {failure}")))
            }
            _ => Err(error),
        }))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.inner).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut tls.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.inner).poll_shutdown(cx),
        }
    }
}
