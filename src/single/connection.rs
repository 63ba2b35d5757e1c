//! The connection: what is read becomes frames, and frames become an answer.

mod received;

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Error, MAX_HEADER_LIST, SEND_BUFFER, STREAM_WINDOW,
    answer::Incoming,
    frame::{Head, kind, setting},
    input::Input,
    output::Output,
    request::Outgoing,
    window::{FIRST_WINDOW, Window},
};

/// What a client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that an endpoint may send on the connection: never fewer than on its stream.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Frames that are looked at before others get their turn.
const TURN: u32 = 128;
/// With so many bytes unwritten nothing more is read: an endpoint that asks and does not listen gets no answers. More
/// than a call may have unwritten, so that two who wait for each other to read do not wait for ever.
const MOST_UNWRITTEN: usize = SEND_BUFFER + (16 << 10);

/// A connection to an endpoint, for one call. Nothing happens but in [`Self::drive`].
#[derive(Debug)]
pub struct Connection<T> {
    io: T,
    input: Input,
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
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST as u32),
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
            input: Input::default(),
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
                Ok(()) => match self.input.poll_read(&mut self.io, cx, left) {
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

    /// Looks at the frames that have come, as long as it is this connection's turn.
    fn look(&mut self, turn: &mut u32) -> Result<(), Error> {
        while *turn > 0
            && let Some((frame, payload)) = self.input.next_frame()?
        {
            *turn -= 1;
            self.take(frame, payload)?;
        }
        if !self.input.shrink() && *turn > 0 {
            self.input.keep();
        }
        Ok(())
    }
}
