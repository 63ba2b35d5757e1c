//! The call on its way to the endpoint: its head, its body as far as the endpoint lets it, its trailers.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};

use super::{
    Error, MAX_FRAME, SEND_BUFFER,
    frame::{HEAD, Head, flag, kind},
    hpack::Encoder,
    output::Output,
    window::FIRST_WINDOW,
};

/// The most that it ever may (section 6.9.1).
const MOST: i64 = 0x7fff_ffff;

/// What has been said, and what waits for room.
#[derive(Debug)]
pub(super) struct Outgoing {
    encoder: Encoder,
    /// Whether the head has gone out.
    began: bool,
    /// What the endpoint lets go out on the stream, which its SETTINGS can make negative; on the connection; and what
    /// it let go out on the stream when that began.
    stream: i64,
    connection: i64,
    first: i64,
    /// Parts of the body that wait, and their bytes.
    waiting: VecDeque<Bytes>,
    waits: usize,
    end: End,
}

#[derive(Debug)]
enum End {
    /// More may come.
    Open,
    /// Nothing comes behind what waits,
    Data,
    /// or these.
    Trailers(Box<HeaderMap>),
    /// All has gone out.
    Said,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            encoder: Encoder::new(),
            began: false,
            stream: FIRST_WINDOW as i64,
            connection: FIRST_WINDOW as i64,
            first: FIRST_WINDOW as i64,
            waiting: VecDeque::new(),
            waits: 0,
            end: End::Open,
        }
    }

    /// Whether the stream has been opened.
    pub(super) const fn has_begun(&self) -> bool {
        self.began
    }

    /// Opens the stream.
    pub(super) fn head(&mut self, request: &Request<()>, ends: bool, output: &mut Output) {
        self.began = true;
        let encoder = &mut self.encoder;
        block(output, ends, |to| encoder.request(request, to));
        if ends {
            self.end = End::Said;
        }
    }

    /// Bytes for which there is room, for the endpoint and here.
    pub(super) fn room(&self, output: &Output) -> usize {
        let here = SEND_BUFFER.saturating_sub(self.waits + output.len());
        self.open().saturating_sub(self.waits).min(here)
    }

    /// Bytes that the endpoint lets go out now.
    fn open(&self) -> usize {
        usize::try_from(self.stream.min(self.connection)).unwrap_or(0)
    }

    /// Adds a part of the body, which waits where there is no room for it.
    pub(super) fn data(&mut self, part: Bytes, ends: bool, output: &mut Output) {
        if ends {
            self.end = End::Data;
        }
        self.waits += part.len();
        if !part.is_empty() {
            self.waiting.push_back(part);
        }
        self.go_on(output);
    }

    /// Adds the trailers.
    pub(super) fn trailers(&mut self, trailers: HeaderMap, output: &mut Output) {
        self.end = End::Trailers(Box::new(trailers));
        self.go_on(output);
    }

    /// Sends as much of what waits as the endpoint lets go out.
    fn go_on(&mut self, output: &mut Output) {
        loop {
            let open = self.open();
            let Some(part) = self.waiting.front_mut() else { break };
            let bytes = part.len().min(open).min(MAX_FRAME);
            if bytes == 0 {
                return;
            }
            let piece = part.split_to(bytes);
            if part.is_empty() {
                self.waiting.pop_front();
            }
            self.waits -= bytes;
            self.stream -= bytes as i64;
            self.connection -= bytes as i64;
            let ends = self.waiting.is_empty() && matches!(self.end, End::Data);
            output.data(piece, ends);
            if ends {
                self.end = End::Said;
            }
        }
        match std::mem::replace(&mut self.end, End::Said) {
            End::Open => self.end = End::Open,
            End::Data => output.data(Bytes::new(), true),
            End::Trailers(trailers) => {
                let encoder = &mut self.encoder;
                block(output, true, |to| encoder.trailers(&trailers, to));
            }
            End::Said => {}
        }
    }

    /// The endpoint lets more go out (WINDOW_UPDATE), on the stream or on the connection.
    pub(super) fn widen(
        &mut self,
        more: u32,
        stream: bool,
        output: &mut Output,
    ) -> Result<(), Error> {
        let window = if stream { &mut self.stream } else { &mut self.connection };
        *window += i64::from(more);
        if more == 0 {
            return Err(Error::protocol("a WINDOW_UPDATE of nothing"));
        }
        self.check()?;
        self.go_on(output);
        Ok(())
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) fn resize(&mut self, first: u32, output: &mut Output) -> Result<(), Error> {
        self.stream += i64::from(first) - self.first;
        self.first = i64::from(first);
        self.check()?;
        self.go_on(output);
        Ok(())
    }

    /// SETTINGS_HEADER_TABLE_SIZE.
    pub(super) const fn resize_table(&mut self, room: u32) {
        self.encoder.resize(room);
    }

    fn check(&self) -> Result<(), Error> {
        match self.stream <= MOST && self.connection <= MOST && self.first <= MOST {
            true => Ok(()),
            false => Err(Error::flow("a window that is too large")),
        }
    }
}

/// A block of fields of the stream, in as many frames as it takes.
fn block(output: &mut Output, ends: bool, write: impl FnOnce(&mut BytesMut)) {
    output.put(|to| {
        let at = to.len();
        to.put_bytes(0, HEAD);
        write(to);
        let length = to.len() - at - HEAD;
        let end_stream = if ends { flag::END_STREAM } else { 0 };
        if length <= MAX_FRAME {
            let head = Head {
                length,
                kind: kind::HEADERS,
                flags: flag::END_HEADERS | end_stream,
                stream: 1,
            };
            return overwrite(to, at, head);
        }
        let block = to.split_off(at + HEAD);
        overwrite(
            to,
            at,
            Head { length: MAX_FRAME, kind: kind::HEADERS, flags: end_stream, stream: 1 },
        );
        let mut parts = block.chunks(MAX_FRAME).peekable();
        to.extend_from_slice(parts.next().unwrap_or_default());
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
            Head { length: part.len(), kind: kind::CONTINUATION, flags, stream: 1 }.put(to);
            to.extend_from_slice(part);
        }
    });
}

fn overwrite(bytes: &mut BytesMut, at: usize, head: Head) {
    let mut written = BytesMut::with_capacity(HEAD);
    head.put(&mut written);
    bytes[at..at + HEAD].copy_from_slice(&written);
}
