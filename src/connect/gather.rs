//! A socket on which what is written early waits for what follows, so that both go out together.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wires::Portion;

/// Most bytes that wait: the preface (24, RFC 9113 section 3.4), the first SETTINGS and the update of the
/// connection's window (at most 9 + 36 and 13), and an acknowledgement of SETTINGS (9) and of a PING (17).
const MOST_HELD: usize = 128;

/// What is wanted of a [`Gather`] once h2 has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reins(Rc<Wishes>);

#[derive(Debug, Default)]
struct Wishes {
    hold: Cell<bool>,
    probe: Cell<Option<Duration>>,
}

impl Reins {
    /// From now on, what is written waits (`true`), or goes out with the next write or flush.
    pub(super) fn hold(&self, hold: bool) {
        self.0.hold.set(hold);
    }

    /// At the next read, asks the system to watch the peer; see [`Probed`].
    pub(super) fn probe(&self, silence: Duration) {
        self.0.probe.set(Some(silence));
    }
}

/// A socket whose peer the system can watch.
pub(super) trait Probed {
    /// Has the connection end with an error where the peer's host has acknowledged nothing of what was
    /// sent, or of probes on a quiet connection, for about `silence`.
    fn probe(&self, silence: Duration) -> io::Result<()>;
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
    reins: Reins,
    /// Whether the peer has said anything yet.
    heard: bool,
    portion: Portion,
}

impl<T> Gather<T> {
    pub(super) const fn new(inner: T, reins: Reins, portion: Portion) -> Self {
        Self { inner, held: SmallVec::new_const(), reins, heard: false, portion }
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    /// Takes `bytes` to wait, if they may and there is room.
    fn hold(&mut self, bytes: &[u8]) -> bool {
        if self.reins.0.hold.get() && self.held.len() + bytes.len() <= MOST_HELD {
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
        if !self.reins.0.hold.get() {
            ready!(self.poll_write_after_held(cx, &[]))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_after_held(cx, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Probed + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(silence) = self.reins.0.probe.take()
            && let Err(error) = self.inner.probe(silence)
        {
            tracing::debug!(%error, "the system does not watch an endpoint");
        }
        if self.portion.is_over(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.portion.came(buf.filled().len() - before);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    fn portion() -> Portion {
        Portion::new(&Rc::default())
    }

    impl Probed for DuplexStream {
        fn probe(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    #[tokio::test]
    async fn all_goes_out_in_order_even_through_a_narrow_pipe() {
        for width in [1, 7, 24, 30, 100] {
            let (near, mut far) = tokio::io::duplex(width);
            let reins = Reins::default();
            let mut gather = Gather::new(near, reins.clone(), portion());
            let writer = async move {
                reins.hold(true);
                gather.write_all(PREFACE).await.unwrap();
                gather.write_all(&[b'S'; MOST_HELD]).await.unwrap();
                gather.write_all(b" ACK").await.unwrap();
                gather.flush().await.unwrap();
                reins.hold(false);
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
        let reins = Reins::default();
        reins.hold(true);
        let mut gather = Gather::new(near, reins, portion());
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
        let reins = Reins::default();
        reins.hold(true);
        let mut gather = Gather::new(near, reins.clone(), portion());
        gather.write_all(PREFACE).await.unwrap();
        far.write_all(b"SETTINGS").await.unwrap();
        let mut bytes = [0; 32];
        gather.read_exact(&mut bytes[..8]).await.unwrap();
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, gather.read(&mut bytes)).await.is_err());
        assert!(tokio::time::timeout(now, far.read(&mut bytes)).await.is_err());
        reins.hold(false);
        gather.write_all(b" HEADERS").await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[..], *[PREFACE, b" HEADERS"].concat());
    }

    #[tokio::test]
    async fn what_is_held_goes_out_with_the_flush_after_it_was_let_go() {
        let (near, mut far) = tokio::io::duplex(100);
        let reins = Reins::default();
        reins.hold(true);
        let mut gather = Gather::new(near, reins.clone(), portion());
        gather.write_all(b"ACK").await.unwrap();
        gather.flush().await.unwrap();
        let mut bytes = [0; 3];
        let early = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut bytes)).await;
        assert!(early.is_err());
        reins.hold(false);
        gather.flush().await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ACK");
    }
}
