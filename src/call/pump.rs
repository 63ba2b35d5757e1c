//! Moves one direction of a call, frame by frame.

use std::{
    mem,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::sound::is_padded;
use crate::connect::{Sink, Source, StreamError};

/// Pieces smaller than this are put together with those that have come after them.
const SMALL: usize = 1 << 10;
/// How large a piece that is put together may become, but for its last part: h2's usual frame.
const GATHERED: usize = 16 << 10;

/// Most bytes of a first piece that are handed over whether there is room or not: most small answers are no
/// larger, and a thousand that nobody takes are 4 MiB. h2 gives a new stream room only when its connection is polled, and so when
/// its head goes out: such a piece goes out with the head, and h2 holds it where there is no room.
const AHEAD: usize = 4 << 10;

/// Takes frames from one side and hands them to the other as it has room: what does not fit stays
/// where it came from, whose window so closes, and nothing is ever held whole.
#[derive(Debug)]
pub(super) struct Pump<S> {
    from: S,
    /// A piece that the other side has no room for yet.
    piece: Bytes,
    /// Whether the piece is the last.
    last: bool,
    /// Whether trailers are expected behind the data. That a piece is the last is then not asked for with
    /// each: it costs a lock, and an answer that ends without them ends with one frame more.
    has_trailers: bool,
    /// Whether what comes after the piece is known not to be data.
    trailers_are_next: bool,
    /// Trailers that have been looked at, and not handed over yet; empty where there are none.
    ending: Option<Box<HeaderMap>>,
    /// Most bytes of the next piece that are handed over without asking for room.
    ahead: usize,
    /// Bytes that have been handed over.
    handed: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Over,
}

/// Sees what passes.
pub(super) trait Tap {
    /// A piece of the body is about to be handed over.
    fn piece(&mut self, piece: &Bytes);
    /// Trailers are about to be handed over.
    fn trailers(&mut self, trailers: &HeaderMap);
}

/// Why a direction ended before its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// The side that sends broke off.
    Source(StreamError),
    /// The side that receives takes no more.
    Sink,
}

impl<S: Source> Pump<S> {
    /// From a stream of which nothing has been read, to one on which nothing but the head was sent; `closely`
    /// hands nothing over without room.
    pub(super) const fn new(from: S, has_trailers: bool, closely: bool) -> Self {
        Self {
            from,
            has_trailers,
            piece: Bytes::new(),
            last: false,
            trailers_are_next: false,
            ending: None,
            ahead: if closely { 0 } else { AHEAD },
            handed: 0,
            state: State::Data,
        }
    }

    /// Whether there was nothing to move from the beginning.
    pub(super) fn is_empty(&self) -> bool {
        self.from.is_end_stream() && self.piece.is_empty() && self.ending.is_none()
    }

    /// Whether all data has been handed over, and no trailers follow.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Bytes that have been handed over.
    pub(super) const fn handed(&self) -> u64 {
        self.handed
    }

    /// Whether a piece waits for room on the other side.
    pub(super) const fn is_held_up(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Bytes that have come and that the other side has no room for, and `cx` is woken when there are more; 0 while
    /// it is the sender that is waited for.
    pub(super) fn waits_for_room(&mut self, cx: &mut Context<'_>) -> u64 {
        if self.piece.is_empty() { 0 } else { self.from.held(cx) as u64 }
    }

    /// Whether trailers have been handed over.
    pub(super) fn has_sent_trailers(&self) -> bool {
        self.state == State::Over && !self.last
    }

    /// The trailers that were found where a first piece was looked for; empty where there are none.
    pub(super) fn ending(&mut self) -> Option<&mut HeaderMap> {
        self.ending.as_deref_mut()
    }

    /// Waits for a first piece, or for the end where there is none. Nothing is handed over.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while self.state == State::Data && self.piece.is_empty() {
            if let Some(piece) = ready!(self.from.poll_data(cx)) {
                self.piece = piece?;
                self.last = self.from.is_end_stream();
            } else {
                self.state = State::Trailers;
            }
            if self.piece.is_empty() && self.last {
                self.state = State::Trailers;
            }
        }
        if self.state == State::Trailers && self.ending.is_none() {
            let trailers = ready!(poll_sound_trailers(&mut self.from, cx))?;
            self.ending = Some(Box::new(trailers.unwrap_or_default()));
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what can be moved. Ready once the end has been handed over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Ended>> {
        loop {
            match self.state {
                State::Data => ready!(self.poll_data(cx, to, tap))?,
                State::Trailers => ready!(self.poll_trailers(cx, to, tap))?,
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Hands over as much of one piece as there is room for.
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Ended>> {
        if self.piece.is_empty() {
            match ready!(self.from.poll_data(cx)) {
                Some(piece) => self.piece = piece.map_err(Ended::Source)?,
                None => {
                    self.state = State::Trailers;
                    return Poll::Ready(Ok(()));
                }
            }
            self.last = !self.has_trailers && self.from.is_end_stream();
            if self.piece.len() < SMALL && !self.last {
                self.gather(cx)?;
            }
            // An empty frame that ends nothing says nothing: it is not passed on.
            if self.piece.is_empty() && !self.last {
                return Poll::Ready(Ok(()));
            }
        }
        let wanted = self.piece.len();
        let ahead = mem::take(&mut self.ahead);
        let room = if wanted <= ahead {
            wanted
        } else {
            ready!(to.poll_room(cx, wanted)).ok_or(Ended::Sink)?
        };
        let part =
            if room == wanted { mem::take(&mut self.piece) } else { self.piece.split_to(room) };
        let ends = self.last && self.piece.is_empty();
        tap.piece(&part);
        self.handed += part.len() as u64;
        to.send_data(part, ends).map_err(|_| Ended::Sink)?;
        // The sender may send as much again. What little a last piece took of its connection's window it
        // gets back with the stream.
        if !ends || room >= SMALL {
            self.from.release(room);
        }
        if ends {
            self.state = State::Over;
        } else if self.trailers_are_next && self.piece.is_empty() {
            self.state = State::Trailers;
        }
        Poll::Ready(Ok(()))
    }

    /// Adds what has come already to a small piece. Passed on one by one, thousands of small frames
    /// would make the other side end the connection: h2 allows so many of them unread.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        let mut gathered = BytesMut::new();
        while self.piece.len().max(gathered.len()) < GATHERED
            && let Poll::Ready(more) = self.from.poll_data(cx)
        {
            let Some(more) = more else {
                self.trailers_are_next = true;
                break;
            };
            if gathered.is_empty() {
                gathered.extend_from_slice(&self.piece);
            }
            gathered.extend_from_slice(&more.map_err(Ended::Source)?);
        }
        if !gathered.is_empty() {
            self.piece = gathered.freeze();
            self.last = self.from.is_end_stream();
        }
        Ok(())
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Ended>> {
        let trailers = match self.ending.take() {
            Some(trailers) => Some(*trailers).filter(|trailers| !trailers.is_empty()),
            None => ready!(poll_sound_trailers(&mut self.from, cx)).map_err(Ended::Source)?,
        };
        let handed = match trailers {
            Some(trailers) => {
                tap.trailers(&trailers);
                to.send_trailers(trailers)
            }
            None => {
                self.last = true;
                to.send_data(Bytes::new(), true)
            }
        };
        self.state = State::Over;
        Poll::Ready(handed.map_err(|_| Ended::Sink))
    }
}

/// Trailers that everybody reads in the same way, as heads have to be. What h2 refuses of them by itself
/// fails alike.
fn poll_sound_trailers(
    from: &mut impl Source,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<HeaderMap>, StreamError>> {
    let trailers = ready!(from.poll_trailers(cx))?;
    let is_sound = |trailers: &HeaderMap| trailers.values().all(|v| !is_padded(v.as_bytes()));
    Poll::Ready(match trailers.as_ref().is_none_or(is_sound) {
        true => Ok(trailers),
        false => Err(h2::Error::from(h2::Reason::PROTOCOL_ERROR).into()),
    })
}
