//! The body of a call on its way up.

mod copied;

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use smallvec::SmallVec;

pub use copied::Copied;

use super::pump::{Ended, Pump, Tap};
use crate::connect::{Sink, StreamError};

/// Parts of a body. Mostly there is one.
type Pieces = SmallVec<[Bytes; 1]>;

/// Most bytes of a body kept for another attempt.
const REPLAY: usize = 64 << 10;

/// The body of a call: read from downstream as fast as the endpoint takes it, and kept, while it is
/// small and the endpoint may still refuse the call, for another attempt.
#[derive(Debug)]
pub struct Upload {
    /// What comes from downstream; none where all of it has come, and is kept.
    pump: Option<Pump<RecvStream>>,
    kept: Kept,
}

/// What has gone out, for as long as it may have to go out again.
#[derive(Debug)]
struct Kept {
    sent: Pieces,
    bytes: usize,
    replay: Replay,
    /// Pieces that have gone out, kept or not; trailers are one.
    pieces: usize,
    /// Gets the same, where an attempt beside this one may need it.
    copied: Option<Rc<Copied>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// What goes out is kept.
    Keep,
    /// What was kept goes out again, from this piece on.
    Again(usize),
    /// No further attempt is possible.
    Over,
}

impl Upload {
    /// The body as it comes from downstream.
    pub const fn new(body: RecvStream) -> Self {
        Self {
            pump: Some(Pump::new(body, false, false)),
            kept: Kept::new(Pieces::new_const(), Replay::Keep),
        }
    }

    /// Whether there is no body at all: the head ends the call.
    pub fn is_empty(&self) -> bool {
        self.kept.sent.is_empty() && self.pump.as_ref().is_none_or(Pump::is_empty)
    }

    /// Moves what can be moved. Ready once the upload is over for this endpoint.
    ///
    /// # Errors
    /// The caller went away. That the endpoint takes no more is not an error here: it shows in its
    /// answer.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
    ) -> Poll<Result<(), StreamError>> {
        if self.send_again(to).is_err() {
            return Poll::Ready(Ok(()));
        }
        let Some(pump) = &mut self.pump else { return Poll::Ready(Ok(())) };
        match ready!(pump.poll(cx, to, &mut self.kept)) {
            Ok(()) => {
                self.kept.ended(pump);
                Poll::Ready(Ok(()))
            }
            Err(Ended::Sink) => Poll::Ready(Ok(())),
            Err(Ended::Source(error)) => Poll::Ready(Err(error)),
        }
    }

    /// How many pieces have gone out: more than before, if the endpoint has got something new.
    pub const fn pieces(&self) -> usize {
        self.kept.pieces
    }

    /// No other attempt will follow: what was kept is let go.
    pub fn commit(&mut self) {
        self.kept.forget();
    }

    /// Whether all that went out is still there.
    pub fn can_rewind(&self) -> bool {
        self.kept.replay != Replay::Over && !self.pump.as_ref().is_some_and(Pump::has_sent_trailers)
    }

    /// Makes the upload begin again, if all that went out is still there.
    pub fn rewind(&mut self) -> bool {
        let can = self.can_rewind();
        if can {
            self.kept.replay = Replay::Again(0);
        }
        can
    }

    /// Sends what an earlier attempt had sent: at most 64 KiB, which h2 may hold until there is room.
    fn send_again(&mut self, to: &mut impl Sink) -> Result<(), StreamError> {
        while let Replay::Again(at) = self.kept.replay {
            let Some(piece) = self.kept.sent.get(at) else {
                self.kept.replay = Replay::Keep;
                break;
            };
            let all = self.pump.as_ref().is_none_or(Pump::is_over);
            let last = at + 1 == self.kept.sent.len() && all;
            to.send_data(piece.clone(), last)?;
            self.kept.pieces += 1;
            self.kept.replay = Replay::Again(at + 1);
        }
        Ok(())
    }
}

impl Kept {
    const fn new(sent: Pieces, replay: Replay) -> Self {
        Self { sent, bytes: 0, replay, pieces: 0, copied: None }
    }

    fn forget(&mut self) {
        self.replay = Replay::Over;
        self.sent = Pieces::new();
    }

    /// The body has ended, in trailers or without.
    fn ended(&self, pump: &Pump<RecvStream>) {
        let Some(copied) = &self.copied else { return };
        if self.replay == Replay::Over || pump.has_sent_trailers() {
            copied.give_up();
        } else {
            copied.complete(&self.sent);
        }
    }
}

impl Tap for Kept {
    fn piece(&mut self, piece: &Bytes) {
        self.pieces += 1;
        if self.replay == Replay::Over || piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        if self.bytes > REPLAY {
            if let Some(copied) = &self.copied {
                copied.give_up();
            }
            self.forget();
        } else {
            self.sent.push(piece.clone());
        }
    }

    fn trailers(&mut self, _: &HeaderMap) {
        self.pieces += 1;
    }
}
