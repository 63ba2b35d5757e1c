//! A socket whose first bytes wait for those that follow.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Client connection preface, RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Holds the client preface back until the next write and sends both in one system call.
///
/// h2 writes the preface by itself and SETTINGS (and, where the call may follow at once, HEADERS and
/// DATA) later: two packets and two wake-ups of the peer for each connection, were they not gathered.
#[derive(Debug)]
pub(super) struct Gather<T> {
    inner: T,
    /// Bytes of [`PREFACE`] that h2 has handed over and the socket has not taken.
    held: &'static [u8],
    /// Whether the preface is over: from then on, this is the inner socket.
    started: bool,
}

impl<T> Gather<T> {
    pub(super) const fn new(inner: T) -> Self {
        Self { inner, held: b"", started: false }
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    /// Writes what is held and then `bufs`. Reports only bytes of `bufs`.
    fn poll_write_after_held(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let mut all = smallvec::SmallVec::<[IoSlice<'_>; 16]>::new();
            all.push(IoSlice::new(self.held));
            all.extend(bufs.iter().map(|buf| IoSlice::new(buf)));
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held = &self.held[of_held..];
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.started {
            self.started = true;
            if buf == PREFACE {
                self.held = PREFACE;
                return Poll::Ready(Ok(buf.len()));
            }
        }
        if self.held.is_empty() {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        self.poll_write_after_held(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_after_held(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_preface_goes_out_with_the_write_that_follows_even_through_a_narrow_pipe() {
        for width in [1, 7, 24, 30, 100] {
            let (near, mut far) = tokio::io::duplex(width);
            let mut gather = Gather::new(near);
            let writer = async move {
                gather.write_all(PREFACE).await.unwrap();
                gather.write_all(b"SETTINGS").await.unwrap();
                gather.write_all(b" HEADERS").await.unwrap();
            };
            let mut received = Vec::new();
            let reader = far.read_to_end(&mut received);
            let ((), read) = tokio::join!(writer, reader);
            read.unwrap();
            assert_eq!(received, [PREFACE, b"SETTINGS HEADERS"].concat());
        }
    }

    #[tokio::test]
    async fn nothing_is_written_for_the_preface_alone() {
        let (near, mut far) = tokio::io::duplex(100);
        let mut gather = Gather::new(near);
        gather.write_all(PREFACE).await.unwrap();
        let mut byte = [0];
        let read = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut byte));
        assert!(read.await.is_err());
    }
}
