//! The stream of a call, on whichever kind of connection: what goes up, what comes down, and how it breaks.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, response};

use crate::{single, tls::Stream};

/// A connection that is a call's own, which its stream and whoever drives it hold in common.
pub(super) type Link = Rc<RefCell<single::Connection<Stream>>>;

/// Where parts of a body come from, be it from an application or from an endpoint.
pub trait Source {
    /// Waits for a part; none once there are no more.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>>;
    /// Waits for the trailers behind the last part; none where there are none.
    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, StreamError>>;
    /// Whether it is known that nothing more comes, not even trailers.
    fn is_end_stream(&self) -> bool;
    /// Bytes that have come and have not been released; `cx` is woken when there are more.
    fn held(&mut self, cx: &mut Context<'_>) -> usize;
    /// So many bytes may be sent again.
    fn release(&mut self, bytes: usize);
}

/// Where parts of a body go.
pub trait Sink {
    /// Waits until there is room, and says for how many of the `wanted` bytes; none once nothing can be sent.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>>;
    /// Sends a part, which waits where there is no room for it; `ends` behind the last one.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    fn send_data(&mut self, part: Bytes, ends: bool) -> Result<(), StreamError>;
    /// Sends trailers, behind which nothing follows.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError>;
}

/// The answer of an endpoint, before its head has come.
#[derive(Debug)]
pub enum Awaited {
    /// On a shared connection.
    Shared(ResponseFuture),
    /// On one of the call's own.
    Own(OwnStream),
}

/// The answer of an endpoint, behind its head.
#[derive(Debug)]
pub enum Incoming {
    /// On a shared connection.
    Shared(SharedStream),
    /// On one of the call's own.
    Own(OwnStream),
}

/// A call on its way to an endpoint, behind its head.
#[derive(Debug)]
pub enum Outgoing {
    /// On a shared connection.
    Shared(SendStream<Bytes>),
    /// On one of the call's own.
    Own(OwnStream),
}

/// One of the streams of a connection that calls share.
#[derive(Debug)]
pub struct SharedStream {
    stream: RecvStream,
    /// What has come while nobody took anything: h2 tells of more only once it has nothing left.
    taken: VecDeque<Bytes>,
}

/// The one stream of a connection.
#[derive(Debug)]
pub struct OwnStream(pub(super) Link);

/// Why a stream broke.
#[derive(Debug)]
pub enum StreamError {
    /// Of a connection that several calls share, of an application too.
    Shared(h2::Error),
    /// Of a call's own connection.
    Own(single::Error),
}

impl Awaited {
    /// Waits for the head; ask no more once it is there.
    #[inline]
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, Incoming), StreamError>> {
        match self {
            Self::Shared(response) => {
                let (head, body) = ready!(Pin::new(response).poll(cx))?.into_parts();
                Poll::Ready(Ok((
                    head,
                    Incoming::Shared(SharedStream { stream: body, taken: VecDeque::new() }),
                )))
            }
            Self::Own(OwnStream(link)) => {
                let response = ready!(link.borrow_mut().poll_response())?;
                let (head, ()) = response.into_parts();
                Poll::Ready(Ok((head, Incoming::Own(OwnStream(Rc::clone(link))))))
            }
        }
    }
}

impl Source for RecvStream {
    #[inline]
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        Self::poll_data(self, cx).map_err(StreamError::Shared)
    }

    #[inline]
    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        Self::poll_trailers(self, cx).map_err(StreamError::Shared)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        Self::is_end_stream(self)
    }

    #[inline]
    fn held(&mut self, _: &mut Context<'_>) -> usize {
        self.flow_control().used_capacity()
    }

    #[inline]
    fn release(&mut self, bytes: usize) {
        // It can only fail after a reset, which shows by itself.
        let _ = self.flow_control().release_capacity(bytes);
    }
}

impl Source for SharedStream {
    #[inline]
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        match self.taken.pop_front() {
            Some(part) => Poll::Ready(Some(Ok(part))),
            None => Source::poll_data(&mut self.stream, cx),
        }
    }

    #[inline]
    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        Source::poll_trailers(&mut self.stream, cx)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.stream.is_end_stream()
    }

    fn held(&mut self, cx: &mut Context<'_>) -> usize {
        // How it breaks is told again to whoever asks for the next part.
        while let Poll::Ready(Some(Ok(part))) = self.stream.poll_data(cx) {
            self.taken.push_back(part);
        }
        Source::held(&mut self.stream, cx)
    }

    #[inline]
    fn release(&mut self, bytes: usize) {
        Source::release(&mut self.stream, bytes);
    }
}

impl Source for Incoming {
    #[inline]
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        match self {
            Self::Shared(stream) => stream.poll_data(cx),
            Self::Own(OwnStream(link)) => link.borrow_mut().poll_data().map_err(StreamError::Own),
        }
    }

    #[inline]
    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        match self {
            Self::Shared(stream) => stream.poll_trailers(cx),
            Self::Own(OwnStream(link)) => {
                link.borrow_mut().poll_trailers().map_err(StreamError::Own)
            }
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Shared(stream) => stream.is_end_stream(),
            Self::Own(OwnStream(link)) => link.borrow().is_end_stream(),
        }
    }

    #[inline]
    fn held(&mut self, cx: &mut Context<'_>) -> usize {
        match self {
            Self::Shared(stream) => stream.held(cx),
            Self::Own(OwnStream(link)) => link.borrow().held(),
        }
    }

    #[inline]
    fn release(&mut self, bytes: usize) {
        match self {
            Self::Shared(stream) => stream.release(bytes),
            Self::Own(OwnStream(link)) => link.borrow_mut().release(bytes),
        }
    }
}

impl Sink for SendStream<Bytes> {
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        self.reserve_capacity(wanted);
        loop {
            let room = self.capacity();
            if room > 0 {
                return Poll::Ready(Some(room.min(wanted)));
            }
            match ready!(self.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }

    #[inline]
    fn send_data(&mut self, part: Bytes, ends: bool) -> Result<(), StreamError> {
        Self::send_data(self, part, ends).map_err(StreamError::Shared)
    }

    #[inline]
    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError> {
        Self::send_trailers(self, trailers).map_err(StreamError::Shared)
    }
}

impl Sink for Outgoing {
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        match self {
            Self::Shared(stream) => Sink::poll_room(stream, cx, wanted),
            Self::Own(OwnStream(link)) => {
                link.borrow_mut().poll_room().map(|room| room.map(|room| room.min(wanted)))
            }
        }
    }

    #[inline]
    fn send_data(&mut self, part: Bytes, ends: bool) -> Result<(), StreamError> {
        match self {
            Self::Shared(stream) => Sink::send_data(stream, part, ends),
            Self::Own(OwnStream(link)) => {
                link.borrow_mut().send_data(part, ends).map_err(StreamError::Own)
            }
        }
    }

    #[inline]
    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError> {
        match self {
            Self::Shared(stream) => Sink::send_trailers(stream, trailers),
            Self::Own(OwnStream(link)) => {
                link.borrow_mut().send_trailers(trailers).map_err(StreamError::Own)
            }
        }
    }
}

impl StreamError {
    /// The code of RST_STREAM or GOAWAY, from whichever side.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Shared(error) => error.reason(),
            Self::Own(
                single::Error::Reset(code)
                | single::Error::GoAway(code)
                | single::Error::Malformed { code, .. },
            ) => Some(*code),
            Self::Own(_) => None,
        }
    }

    /// Whether the other side reset the stream.
    pub fn is_remote_reset(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_reset() && error.is_remote(),
            Self::Own(error) => matches!(error, single::Error::Reset(_)),
        }
    }

    /// Whether the other side gave the connection up without having worked on the stream.
    pub fn is_remote_go_away(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_go_away() && error.is_remote(),
            Self::Own(error) => matches!(error, single::Error::GoAway(_)),
        }
    }

    /// Whether what the other side sent is not HTTP/2.
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_library() || self.is_found_here(),
            Self::Own(error) => matches!(error, single::Error::Malformed { .. }),
        }
    }

    /// Whether this proxy found trailers malformed that the HTTP/2 of a connection let pass, or refused.
    pub fn is_found_here(&self) -> bool {
        match self {
            Self::Shared(error) => {
                !error.is_remote() && error.reason() == Some(Reason::PROTOCOL_ERROR)
            }
            Self::Own(_) => false,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(error) => error.fmt(f),
            Self::Own(error) => error.fmt(f),
        }
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        Self::Shared(error)
    }
}

impl From<single::Error> for StreamError {
    fn from(error: single::Error) -> Self {
        Self::Own(error)
    }
}
