//! What is to be written.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::frame::{Head, flag, kind};

/// Payloads up to this are copied behind what goes before them, so that all goes out as one piece.
const SMALL: usize = 2 << 10;
/// Pieces of one write.
const PIECES: usize = 16;

/// Bytes in the order in which they go out. Holds nothing once all are written.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Pieces before `last`.
    pieces: VecDeque<Bytes>,
    last: BytesMut,
    /// Bytes of all.
    length: usize,
}

impl Output {
    /// Bytes that have not been written.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds what `write` puts behind everything.
    pub(super) fn put<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        let before = self.last.len();
        let written = write(&mut self.last);
        self.length += self.last.len() - before;
        written
    }

    /// Adds a small frame.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.put(|to| {
            Head { length: payload.len(), kind, flags, stream }.put(to);
            to.extend_from_slice(payload);
        });
    }

    /// Lets the endpoint send so much more, on a stream or, as 0, on the connection.
    pub(super) fn window_update(&mut self, stream: u32, more: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    }

    /// Adds a frame of DATA of the stream.
    pub(super) fn data(&mut self, payload: Bytes, ends: bool) {
        let flags = if ends { flag::END_STREAM } else { 0 };
        let head = Head { length: payload.len(), kind: kind::DATA, flags, stream: 1 };
        if payload.len() <= SMALL {
            return self.put(|to| {
                head.put(to);
                to.extend_from_slice(&payload);
            });
        }
        self.put(|to| head.put(to));
        self.length += payload.len();
        self.pieces.push_back(self.last.split().freeze());
        self.pieces.push_back(payload);
    }

    /// Writes as much as can be written; ready once that was all.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.length > 0 {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.last))?
            } else {
                let pieces = self.pieces.iter().map(|piece| &**piece).take(PIECES - 1);
                let all = pieces.chain([&*self.last]).map(IoSlice::new);
                let all: SmallVec<[IoSlice<'_>; PIECES]> = match self.pieces.len() < PIECES {
                    true => all.collect(),
                    // `last` is not what follows these.
                    false => all.take(PIECES - 1).collect(),
                };
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &all))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut bytes: usize) {
        self.length -= bytes;
        while let Some(first) = self.pieces.front_mut() {
            let of_first = bytes.min(first.len());
            first.advance(of_first);
            bytes -= of_first;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.last.advance(bytes);
        if self.length == 0 {
            drop(mem::take(self));
        }
    }
}
