//! A socket on which what is written early waits for what follows, so that both go out together.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that wait: the preface (24, RFC 9113 section 3.4), the first SETTINGS and the update of the
/// connection's window (at most 9 + 36 and 13), and an acknowledgement of SETTINGS (9) and of a PING (17).
const MOST_HELD: usize = 128;

/// Whether small writes wait now. Shared by a [`Gather`] and whoever knows that more follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Rc<Cell<bool>>);

impl Hold {
    /// From now on, what is written waits (`true`), or goes out with the next write or flush.
    pub(super) fn set(&self, hold: bool) {
        self.0.set(hold);
    }
}

/// Holds small early writes back and sends them with what follows in one system call.
///
/// h2 writes the preface by itself, then SETTINGS, then the acknowledgement of the peer's SETTINGS,
/// then HEADERS and DATA: four packets, and as many wake-ups of the peer, for each connection. With
/// this it is one where the peer's SETTINGS are there as soon as it is connected, as most servers
/// have it; else two, since what is held goes out before a peer is waited for that has said nothing
/// yet: preface and SETTINGS; acknowledgement, HEADERS and DATA.
#[derive(Debug)]
pub(super) struct Gather<T> {
    inner: T,
    held: SmallVec<[u8; MOST_HELD]>,
    hold: Hold,
    /// Whether the peer has said anything yet.
    heard: bool,
}

impl<T> Gather<T> {
    pub(super) const fn new(inner: T, hold: Hold) -> Self {
        Self { inner, held: SmallVec::new_const(), hold, heard: false }
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    /// Takes `bytes` to wait, if they may and there is room.
    fn hold(&mut self, bytes: &[u8]) -> bool {
        if self.hold.0.get() && self.held.len() + bytes.len() <= MOST_HELD {
            self.held.extend_from_slice(bytes);
            return true;
        }
        false
    }

    /// Writes what is held and then `bufs`. Reports only bytes of `bufs`.
    fn poll_write_after_held(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let written = {
                let held = std::iter::once(IoSlice::new(&self.held));
                let all: SmallVec<[IoSlice<'_>; 16]> =
                    held.chain(bufs.iter().map(|buf| IoSlice::new(buf))).collect();
                ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &all))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.drain(..of_held);
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        if bufs.is_empty() {
            return Poll::Ready(Ok(0));
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
        self.as_mut().poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs
            && self.hold(buf)
        {
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_write_after_held(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.hold.0.get() {
            ready!(self.poll_write_after_held(cx, &[]))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_after_held(cx, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.heard |= read.is_ready();
        // The peer may be waiting for the preface. Where it cannot be written now, that wakes, too.
        if !self.heard
            && !self.held.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_write_after_held(cx, &[])
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    #[tokio::test]
    async fn all_goes_out_in_order_even_through_a_narrow_pipe() {
        for width in [1, 7, 24, 30, 100] {
            let (near, mut far) = tokio::io::duplex(width);
            let hold = Hold::default();
            let mut gather = Gather::new(near, hold.clone());
            let writer = async move {
                hold.set(true);
                gather.write_all(PREFACE).await.unwrap();
                gather.write_all(&[b'S'; MOST_HELD]).await.unwrap();
                gather.write_all(b" ACK").await.unwrap();
                gather.flush().await.unwrap();
                hold.set(false);
                gather.write_all(b" HEADERS").await.unwrap();
            };
            let mut received = Vec::new();
            let reader = far.read_to_end(&mut received);
            let ((), read) = tokio::join!(writer, reader);
            read.unwrap();
            assert_eq!(received, [PREFACE, &[b'S'; MOST_HELD], b" ACK HEADERS"].concat());
        }
    }

    #[tokio::test]
    async fn what_is_held_goes_out_before_a_peer_is_waited_for_that_has_said_nothing() {
        let (near, mut far) = tokio::io::duplex(100);
        let hold = Hold::default();
        hold.set(true);
        let mut gather = Gather::new(near, hold);
        gather.write_all(PREFACE).await.unwrap();
        let (mut settings, mut bytes) = ([0; 8], [0; 24]);
        let (read, ()) = tokio::join!(gather.read(&mut settings), async {
            far.read_exact(&mut bytes).await.unwrap();
            far.write_all(b"SETTINGS").await.unwrap();
        });
        assert_eq!((read.unwrap(), &bytes[..]), (8, PREFACE));
    }

    #[tokio::test]
    async fn what_is_held_still_waits_where_the_peer_has_spoken_first() {
        let (near, mut far) = tokio::io::duplex(100);
        let hold = Hold::default();
        hold.set(true);
        let mut gather = Gather::new(near, hold.clone());
        gather.write_all(PREFACE).await.unwrap();
        far.write_all(b"SETTINGS").await.unwrap();
        let mut bytes = [0; 32];
        gather.read_exact(&mut bytes[..8]).await.unwrap();
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, gather.read(&mut bytes)).await.is_err());
        assert!(tokio::time::timeout(now, far.read(&mut bytes)).await.is_err());
        hold.set(false);
        gather.write_all(b" HEADERS").await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[..], *[PREFACE, b" HEADERS"].concat());
    }

    #[tokio::test]
    async fn what_is_held_goes_out_with_the_flush_after_it_was_let_go() {
        let (near, mut far) = tokio::io::duplex(100);
        let hold = Hold::default();
        hold.set(true);
        let mut gather = Gather::new(near, hold.clone());
        gather.write_all(b"ACK").await.unwrap();
        gather.flush().await.unwrap();
        let mut bytes = [0; 3];
        let early = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut bytes)).await;
        assert!(early.is_err());
        hold.set(false);
        gather.flush().await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ACK");
    }
}
