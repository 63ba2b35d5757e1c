//! The socket of an application, with a guard beside it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Guard, PIECE, Portion, frames::Frames};

/// Tells the guard what goes by. Nothing more is read once the guard has had enough.
#[derive(Debug)]
pub(in crate::listener) struct Guarded<T> {
    inner: T,
    frames: Frames,
    guard: Rc<Guard>,
}

impl<T> Guarded<T> {
    pub(in crate::listener) const fn new(inner: T, guard: Rc<Guard>) -> Self {
        Self { inner, frames: Frames::new(), guard }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.guard.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.guard.cannot_write(),
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, frames, guard } = &mut *self;
        if guard.breach().is_some() {
            // What ends the connection looks at the guard after this.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = match guard.may_read(cx) {
            Portion::All => Pin::new(inner).poll_read(cx, buf),
            Portion::Piece => poll_read_piece(Pin::new(inner), cx, buf),
            // Whoever asked looks at the guard, and asks again later.
            Portion::Nothing => Poll::Pending,
        };
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            let tally = frames.follow(new);
            guard.read(tally, frames.is_within_head());
        }
        read
    }
}

fn poll_read_piece<T: AsyncRead>(
    inner: Pin<&mut T>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = buf.remaining().min(PIECE);
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(room));
    let read = inner.poll_read(cx, &mut piece);
    let new = piece.filled().len();
    buf.advance(new);
    read
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready() {
            // h2 flushes when it has written all that it may.
            self.guard.outbox.is_empty_now();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::{super::guard, *};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    /// A connection on which all this has come; its other end; and its guard.
    async fn sent(bytes: &[u8]) -> (Guarded<DuplexStream>, DuplexStream, Rc<Guard>) {
        let (near, mut far) = duplex(bytes.len());
        far.write_all(bytes).await.unwrap();
        let guard = guard(Default::default());
        (Guarded::new(near, Rc::clone(&guard)), far, guard)
    }

    /// Reads until nothing more can be read, and says how much that was.
    fn read(io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> usize {
        let (mut room, mut all) = ([0; 4096], 0);
        loop {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(read) => read.unwrap(),
                Poll::Pending => return all,
            }
            all += buf.filled().len();
        }
    }

    #[tokio::test]
    async fn a_flood_is_read_by_the_piece_and_all_of_it() {
        let flood = [PREFACE, &PING.repeat(4_000)].concat();
        let (mut io, _far, guard) = sent(&flood).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut all, mut turns) = (0, 0);
        loop {
            let part = read(&mut io, &mut cx);
            assert!(part <= 2 * 4096, "{part} bytes in one turn");
            (all, turns) = (all + part, turns + 1);
            if !guard.ends_turn() {
                break;
            }
        }
        assert_eq!(all, flood.len());
        assert!(turns >= 4_000 / 256 - 1, "{turns} turns");
    }

    #[tokio::test]
    async fn a_body_is_read_as_it_comes() {
        let data = [&[0, 0x40, 0, 0, 0, 0, 0, 0, 1][..], &[b'x'; 0x4000]].concat();
        let body = [PREFACE, &data.repeat(16)].concat();
        let (mut io, _far, guard) = sent(&body).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(read(&mut io, &mut cx), body.len());
        assert!(!guard.ends_turn());
    }
}
