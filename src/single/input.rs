//! What has been read of a connection and not been looked at; `connection` takes it frame by frame.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    Error, MAX_FRAME,
    frame::{HEAD, Head, flag, kind},
};

/// Bytes that are read at a time.
const READ: usize = HEAD + MAX_FRAME;

thread_local! {
    /// What is read of all connections of a thread, one after the other.
    static ROOM: RefCell<BytesMut> = RefCell::default();
}

/// Holds nothing while there is nothing.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Frames that have not been looked at, or have not come whole.
    bytes: BytesMut,
    /// What is still to come of a frame of DATA, of which is handed over what there is.
    rest: Option<Head>,
}

impl Input {
    /// Reads up to `most` bytes behind those that there are; 0 at the end.
    pub(super) fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.bytes.is_empty() {
            let room = self.bytes.capacity() - self.bytes.len();
            let mut room = (&mut self.bytes).limit(room.min(most));
            return pin!(io.read_buf(&mut room)).poll(cx);
        }
        ROOM.with_borrow_mut(|room| {
            room.reserve(READ);
            let mut limited = (&mut *room).limit(READ.min(most));
            let read = pin!(io.read_buf(&mut limited)).poll(cx);
            if read.is_ready() {
                self.bytes = room.split();
            }
            read
        })
    }

    /// The next frame that has come whole, or what there is of one of DATA, as if that were one.
    ///
    /// # Errors
    /// It is larger than any may be.
    pub(super) fn next_frame(&mut self) -> Result<Option<(Head, BytesMut)>, Error> {
        let frame = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let Some(head) = Head::parse(&self.bytes) else { return Ok(None) };
                if head.length > MAX_FRAME {
                    return Err(Error::size("a frame that is larger than allowed, or no frame"));
                }
                let has_come = self.bytes.len() - HEAD;
                // Padding is told from DATA only where all is there.
                let may_be_cut = head.kind == kind::DATA && !head.has(flag::PADDED);
                if has_come < head.length && (!may_be_cut || has_come == 0) {
                    return Ok(None);
                }
                self.bytes.advance(HEAD);
                head
            }
        };
        let length = self.bytes.len().min(frame.length);
        if length < frame.length {
            self.rest = Some(Head { length: frame.length - length, ..frame });
            if length == 0 {
                return Ok(None);
            }
        }
        let flags = if length < frame.length { 0 } else { frame.flags };
        Ok(Some((Head { length, flags, ..frame }, self.bytes.split_to(length))))
    }

    /// Gives up its buffer where it is empty.
    pub(super) fn shrink(&mut self) -> bool {
        let is_empty = self.bytes.is_empty();
        if is_empty {
            self.bytes = BytesMut::new();
        }
        is_empty
    }

    /// Keeps the part of a frame, with room for all of it. What is shared with other connections goes back to them.
    pub(super) fn keep(&mut self) {
        let whole = Head::parse(&self.bytes).map_or(HEAD, |head| HEAD + head.length);
        if self.bytes.capacity() < whole {
            let mut kept = BytesMut::with_capacity(whole);
            kept.extend_from_slice(&self.bytes);
            self.bytes = kept;
        }
    }
}
