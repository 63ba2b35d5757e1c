//! The socket of an application, with a guard beside it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Guard, frames::Frames};

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
        let read = Pin::new(inner).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            let tally = frames.follow(new);
            guard.read(tally, frames.is_within_head());
        }
        read
    }
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
