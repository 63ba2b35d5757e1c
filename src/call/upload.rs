//! The body of a call on its way up.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::pump::{Ended, Pump, Tap};

/// Most bytes of a body kept for another attempt.
const REPLAY: usize = 64 << 10;

/// The body of a call: read from downstream as fast as the endpoint takes it, and kept, while it is
/// small and the endpoint may still refuse the call, for another attempt.
#[derive(Debug)]
pub struct Upload {
    pump: Pump,
    kept: Kept,
}

/// What has gone out, for as long as it may have to go out again.
#[derive(Debug)]
struct Kept {
    sent: Vec<Bytes>,
    bytes: usize,
    replay: Replay,
    /// Pieces that have gone out, kept or not; trailers are one.
    pieces: usize,
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
        let kept = Kept { sent: Vec::new(), bytes: 0, replay: Replay::Keep, pieces: 0 };
        Self { pump: Pump::new(body), kept }
    }

    /// Whether there is no body at all: the head ends the call.
    pub fn is_empty(&self) -> bool {
        self.kept.sent.is_empty() && self.pump.is_empty()
    }

    /// Moves what can be moved. Ready once the upload is over for this endpoint.
    ///
    /// # Errors
    /// The caller went away. That the endpoint takes no more is not an error here: it shows in its
    /// answer.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), h2::Error>> {
        if self.send_again(to).is_err() {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.pump.poll(cx, to, &mut self.kept)) {
            Ok(()) | Err(Ended::Sink) => Poll::Ready(Ok(())),
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

    /// Makes the upload begin again, if all that went out is still there.
    pub fn rewind(&mut self) -> bool {
        if matches!(self.kept.replay, Replay::Over) || self.pump.has_sent_trailers() {
            return false;
        }
        self.kept.replay = Replay::Again(0);
        true
    }

    /// Sends what an earlier attempt had sent: at most 64 KiB, which h2 may hold until there is room.
    fn send_again(&mut self, to: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        while let Replay::Again(at) = self.kept.replay {
            let Some(piece) = self.kept.sent.get(at) else {
                self.kept.replay = Replay::Keep;
                break;
            };
            let last = at + 1 == self.kept.sent.len() && self.pump.is_over();
            to.send_data(piece.clone(), last)?;
            self.kept.replay = Replay::Again(at + 1);
        }
        Ok(())
    }
}

impl Kept {
    fn forget(&mut self) {
        self.replay = Replay::Over;
        self.sent = Vec::new();
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
            self.forget();
        } else {
            self.sent.push(piece.clone());
        }
    }

    fn trailers(&mut self, _: &HeaderMap) {
        self.pieces += 1;
    }
}
