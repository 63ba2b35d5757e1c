//! The connection: what is read becomes frames, and frames become an answer.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::Reason;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    Error, MAX_FRAME, MAX_HEADER_LIST, SEND_BUFFER, STREAM_WINDOW,
    answer::Incoming,
    frame::{HEAD, Head, LOW_31, flag, kind},
    output::Output,
    request::Outgoing,
    window::{FIRST_WINDOW, Window},
};

/// What a client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that an endpoint may send on the connection: never fewer than on its stream.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Settings (section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// Bytes that are read at a time.
const READ: usize = HEAD + MAX_FRAME;
/// Frames that are looked at before others get their turn.
const TURN: u32 = 128;
/// With so many bytes unwritten nothing more is read: an endpoint that asks and does not listen gets no answers. More
/// than a call may have unwritten, so that two who wait for each other to read do not wait for ever.
const MOST_UNWRITTEN: usize = SEND_BUFFER + (16 << 10);

thread_local! {
    /// What is read of all connections of a thread, one after the other.
    static ROOM: RefCell<BytesMut> = RefCell::default();
}

/// A connection to an endpoint, for one call. Nothing happens but in [`Self::drive`].
#[derive(Debug)]
pub struct Connection<T> {
    io: T,
    /// Frames that have not been looked at, or have not come whole.
    input: BytesMut,
    /// What is still to come of a frame of DATA, of which is handed over what there is.
    rest: Option<Head>,
    output: Output,
    /// Whether what is to be written waits for the call.
    holds: bool,
    /// Whether the endpoint has said anything.
    heard: bool,
    /// Streams that the endpoint allows at once; none before its SETTINGS have come.
    streams: Option<u32>,
    window: Window,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Whether the call waits for room.
    wants_room: bool,
    /// A write failed: what has come is still read, up to the end, which comes soon.
    unwritable: Option<Error>,
    ended: Option<Error>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Speaks HTTP/2 on `io`. What is said first is held back until the call follows, or the endpoint waits for it:
    /// most speak first, and then all goes out as one packet.
    pub fn new(io: T) -> Self {
        let mut output = Output::default();
        output.put(|to| {
            to.reserve(512);
            to.put_slice(PREFACE);
        });
        let settings = [
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST as u32),
        ];
        output.put(|to| {
            let length = settings.len() * 6;
            Head { length, kind: kind::SETTINGS, flags: 0, stream: 0 }.put(to);
            for (setting, value) in settings {
                to.put_u16(setting);
                to.put_u32(value);
            }
        });
        output.window_update(0, CONNECTION_WINDOW - FIRST_WINDOW);
        Self {
            io,
            input: BytesMut::new(),
            rest: None,
            output,
            holds: true,
            heard: false,
            streams: None,
            window: Window::new(CONNECTION_WINDOW),
            outgoing: Outgoing::new(),
            incoming: Incoming::new(),
            wants_room: false,
            unwritable: None,
            ended: None,
        }
    }

    /// What it runs on.
    pub const fn io(&self) -> &T {
        &self.io
    }

    /// Nothing is held back any more.
    pub const fn let_go(&mut self) {
        self.holds = false;
    }

    /// Waits for the endpoint's SETTINGS, and until they allow a stream.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.drive(cx, None);
        match (&self.ended, self.streams) {
            (Some(error), _) => Poll::Ready(Err(error.clone())),
            (None, Some(1..)) => Poll::Ready(Ok(())),
            (None, _) => Poll::Pending,
        }
    }

    /// Waits until the connection is of no use for a call any more.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drive(cx, None);
        if self.ended.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends the head of the call, once; `ends` where that is all of it.
    ///
    /// # Errors
    /// The connection is of no use: nothing has been sent.
    pub fn send_request(&mut self, request: &Request<()>, ends: bool) -> Result<(), Error> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        self.holds = false;
        self.incoming.asked_by(request.method());
        self.outgoing.head(request, ends, &mut self.output);
        Ok(())
    }

    /// Moves bytes, of those that come at most about `most`; call it whenever the call is polled. Whether it stopped
    /// there: nothing else will tell that there is more.
    pub fn drive(&mut self, cx: &mut Context<'_>, most: Option<usize>) -> bool {
        if self.ended.is_some() || self.incoming.is_over() {
            return false;
        }
        let waited = self.wants_room;
        if !self.holds {
            self.write(cx);
        }
        let there_is_more = self.read(cx, most);
        // The endpoint may be waiting for the preface. Where it cannot be written now, that wakes, too.
        if !self.holds || !self.heard {
            self.write(cx);
        }
        if waited && (self.ended.is_some() || self.outgoing.room(&self.output) > 0) {
            self.wants_room = false;
            cx.waker().wake_by_ref();
        }
        there_is_more
    }

    /// Writes what has been said since the connection was driven.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.output.is_empty() && !self.holds && self.ended.is_none() {
            self.write(cx);
        }
    }

    /// Waits for the head of the answer; it comes once.
    pub fn poll_response(&mut self) -> Poll<Result<Response<()>, Error>> {
        match self.incoming.take_head() {
            Some(head) => Poll::Ready(Ok(head)),
            None => self.fate(),
        }
    }

    /// Waits for a part of the body; none where there are no more.
    pub fn poll_data(&mut self) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(part) = self.incoming.take_part() {
            return Poll::Ready(Some(Ok(part)));
        }
        if self.incoming.is_over() {
            return Poll::Ready(None);
        }
        self.fate().map(Some)
    }

    /// Waits for the trailers; none where there are none.
    pub fn poll_trailers(&mut self) -> Poll<Result<Option<HeaderMap>, Error>> {
        match self.incoming.is_over() {
            true => Poll::Ready(Ok(self.incoming.take_trailers())),
            false => self.fate(),
        }
    }

    /// Whether the answer has come whole, and there is neither a part of its body nor trailers to be taken.
    pub fn is_end_stream(&self) -> bool {
        self.incoming.is_all_taken()
    }

    /// Bytes of the answer that were taken, or wait, and have not been released.
    pub const fn held(&self) -> usize {
        self.incoming.held()
    }

    /// The endpoint may send so many bytes again.
    pub fn release(&mut self, bytes: usize) {
        if let Some(more) = self.incoming.release(bytes) {
            self.output.window_update(1, more);
        }
    }

    /// Bytes of the call's body for which there is room; waits until there is any. None once nothing can be sent.
    pub fn poll_room(&mut self) -> Poll<Option<usize>> {
        if self.ended.is_some() || self.unwritable.is_some() {
            return Poll::Ready(None);
        }
        match self.room() {
            0 => {
                self.wants_room = true;
                Poll::Pending
            }
            room => Poll::Ready(Some(room)),
        }
    }

    /// Bytes of the call's body for which there is room.
    pub fn room(&self) -> usize {
        self.outgoing.room(&self.output)
    }

    /// Sends a part of the body, which waits here where there is no room for it.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    pub fn send_data(&mut self, part: Bytes, ends: bool) -> Result<(), Error> {
        self.check_sendable()?;
        self.outgoing.data(part, ends, &mut self.output);
        Ok(())
    }

    /// Sends trailers, which end the call.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Error> {
        self.check_sendable()?;
        self.outgoing.trailers(trailers, &mut self.output);
        Ok(())
    }

    fn check_sendable(&self) -> Result<(), Error> {
        self.ended.as_ref().or(self.unwritable.as_ref()).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Why nothing more will come, if so.
    fn fate<X>(&self) -> Poll<Result<X, Error>> {
        self.ended.as_ref().map_or(Poll::Pending, |error| Poll::Ready(Err(error.clone())))
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        if self.unwritable.is_none()
            && let Poll::Ready(Err(error)) = self.output.poll_write(&mut self.io, cx)
        {
            self.unwritable = Some(error.into());
        }
    }

    /// Reads as long as there is anything to read.
    fn read(&mut self, cx: &mut Context<'_>, most: Option<usize>) -> bool {
        let (mut turn, mut left) = (TURN, most.unwrap_or(usize::MAX));
        loop {
            match self.look(&mut turn) {
                Err(error) => self.ended = Some(error),
                Ok(()) if turn == 0 => cx.waker().wake_by_ref(),
                Ok(()) if self.incoming.is_over() || self.output.len() > MOST_UNWRITTEN => {}
                Ok(()) if left == 0 => return true,
                Ok(()) => match self.poll_read(cx, left) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(0)) => {
                        let failed = self.unwritable.take();
                        self.ended = Some(failed.unwrap_or(Error::Closed));
                    }
                    Poll::Ready(Ok(bytes)) => {
                        self.heard = true;
                        left -= bytes;
                        continue;
                    }
                    Poll::Ready(Err(error)) => self.ended = Some(error.into()),
                },
            }
            return false;
        }
    }

    /// Reads up to `most` bytes behind those that there are.
    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        if !self.input.is_empty() {
            let room = self.input.capacity() - self.input.len();
            let mut room = (&mut self.input).limit(room.min(most));
            return pin!(self.io.read_buf(&mut room)).poll(cx);
        }
        ROOM.with_borrow_mut(|room| {
            room.reserve(READ);
            let mut limited = (&mut *room).limit(READ.min(most));
            let read = pin!(self.io.read_buf(&mut limited)).poll(cx);
            if read.is_ready() {
                self.input = room.split();
            }
            read
        })
    }

    /// Looks at the frames that have come, as long as it is this connection's turn.
    fn look(&mut self, turn: &mut u32) -> Result<(), Error> {
        while *turn > 0
            && let Some((frame, payload)) = self.next_frame()?
        {
            *turn -= 1;
            self.frame(frame, payload)?;
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else if *turn > 0 {
            self.keep();
        }
        Ok(())
    }

    /// The next frame that has come whole, or what there is of one of DATA, as if that were one.
    fn next_frame(&mut self) -> Result<Option<(Head, BytesMut)>, Error> {
        let frame = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let Some(head) = Head::parse(&self.input) else { return Ok(None) };
                if head.length > MAX_FRAME {
                    return Err(Error::size("a frame that is larger than allowed, or no frame"));
                }
                let has_come = self.input.len() - HEAD;
                // Padding is told from DATA only where all is there.
                let may_be_cut = head.kind == kind::DATA && !head.has(flag::PADDED);
                if has_come < head.length && (!may_be_cut || has_come == 0) {
                    return Ok(None);
                }
                self.input.advance(HEAD);
                head
            }
        };
        let length = self.input.len().min(frame.length);
        if length < frame.length {
            self.rest = Some(Head { length: frame.length - length, ..frame });
            if length == 0 {
                return Ok(None);
            }
        }
        let flags = if length < frame.length { 0 } else { frame.flags };
        Ok(Some((Head { length, flags, ..frame }, self.input.split_to(length))))
    }

    /// Keeps the part of a frame, with room for all of it. What is shared with other connections goes back to them.
    fn keep(&mut self) {
        let whole = Head::parse(&self.input).map_or(HEAD, |head| HEAD + head.length);
        if self.input.capacity() < whole {
            let mut kept = BytesMut::with_capacity(whole);
            kept.extend_from_slice(&self.input);
            self.input = kept;
        }
    }

    fn frame(&mut self, frame: Head, payload: BytesMut) -> Result<(), Error> {
        if self.streams.is_none() && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err(Error::protocol("something before its SETTINGS"));
        }
        if self.incoming.is_within_block() && (frame.kind, frame.stream) != (kind::CONTINUATION, 1)
        {
            return Err(Error::protocol("something within a head"));
        }
        match frame.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION | kind::RST_STREAM => {
                self.of_stream(frame, payload)
            }
            kind::SETTINGS => self.settings(frame, &payload),
            kind::PING => self.ping(frame, &payload),
            kind::GOAWAY => self.goaway(frame, &payload),
            kind::WINDOW_UPDATE => self.window_update(frame, &payload),
            kind::PUSH_PROMISE => Err(Error::protocol("a PUSH_PROMISE")),
            kind::PRIORITY if payload.len() != 5 => Err(Error::size("a PRIORITY of another size")),
            // RFC 9113 section 5.5: what is unknown is ignored.
            _ => Ok(()),
        }
    }

    fn of_stream(&mut self, frame: Head, payload: BytesMut) -> Result<(), Error> {
        if frame.stream != 1 || !self.outgoing.has_begun() {
            return Err(Error::protocol("a stream that was not opened"));
        }
        if self.incoming.is_over() {
            return Ok(());
        }
        match frame.kind {
            kind::HEADERS => self.incoming.headers(frame, payload),
            kind::CONTINUATION => self.incoming.continuation(frame, &payload),
            kind::DATA => {
                let bytes = payload.len() as u32;
                if let Some(more) = self.incoming.data(frame, payload)? {
                    self.output.window_update(1, more);
                }
                // The stream's window, which is the smaller one, says what may come.
                if self.window.receive(bytes)
                    && let Some(more) = self.window.release(bytes)
                {
                    self.output.window_update(0, more);
                }
                Ok(())
            }
            _ => {
                let code = word(&payload).ok_or(Error::size("a RST_STREAM of another size"))?;
                Err(Error::Reset(code.into()))
            }
        }
    }

    fn settings(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("SETTINGS of a stream"));
        }
        if frame.has(flag::ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(Error::size("an acknowledgement of another size")),
            };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Error::size("SETTINGS of another size"));
        }
        // Without a word of it, there is no limit.
        self.streams.get_or_insert(u32::MAX);
        for setting in payload.chunks_exact(6) {
            let (id, value) = setting.split_at(2);
            let value = word(value).unwrap_or_default();
            match u16::from_be_bytes([id[0], id[1]]) {
                HEADER_TABLE_SIZE => self.outgoing.resize_table(value),
                MAX_CONCURRENT_STREAMS => self.streams = Some(value),
                INITIAL_WINDOW_SIZE => self.outgoing.resize(value, &mut self.output)?,
                MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Error::protocol("a frame size that is not allowed"));
                }
                ENABLE_PUSH if value > 0 => return Err(Error::protocol("pushes by a server")),
                // What is sent is never larger than all have to take.
                _ => {}
            }
        }
        self.output.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn ping(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("a PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(Error::size("a PING of another size"));
        }
        if !frame.has(flag::ACK) {
            self.output.frame(kind::PING, flag::ACK, 0, payload);
        }
        Ok(())
    }

    fn goaway(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("GOAWAY of a stream"));
        }
        let (last, code) = (payload.get(..4).and_then(word), payload.get(4..8).and_then(word));
        let (Some(last), Some(code)) = (last, code) else {
            return Err(Error::size("a GOAWAY that is too short"));
        };
        // A stream that the last one covers is answered, or ends with the connection.
        match self.outgoing.has_begun() && last & LOW_31 >= 1 {
            true => Ok(()),
            false => Err(Error::GoAway(Reason::from(code))),
        }
    }

    fn window_update(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        let more = word(payload).ok_or(Error::size("a WINDOW_UPDATE of another size"))?;
        let more = more & LOW_31;
        match frame.stream {
            0 => self.outgoing.widen(more, false, &mut self.output),
            1 if self.outgoing.has_begun() => self.outgoing.widen(more, true, &mut self.output),
            _ => Err(Error::protocol("a WINDOW_UPDATE of a stream that was not opened")),
        }
    }
}

/// A payload, or part, of four bytes.
fn word(payload: &[u8]) -> Option<u32> {
    payload.try_into().map(u32::from_be_bytes).ok()
}
