//! A call being exchanged with one endpoint: up and down at the same time.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason as Code, SendStream};
use http::{HeaderMap, Request, response};

use super::{
    AttemptError, Call, CallError, CallMeta, Kind, Outcome, Progress,
    foreign::is_foreign,
    pump::{Ended, Pump, Tap},
    sound::fault,
};
use crate::{
    connect::{Awaited, Incoming, Outgoing, Source, StreamError, Upstream},
    metrics::AttemptOutcome,
    model::{GrpcStatus, Reason},
};

/// Bytes that are read at a time under pressure: a thousand answers that nobody takes are 2 MiB.
const PIECE: usize = 2 << 10;

/// One attempt of a call on a connected endpoint.
///
/// [`Self::poll_head`] until the endpoint's head is there, then [`Self::poll_body`]. Dropping it
/// early resets the stream upstream with CANCEL.
#[derive(Debug)]
pub struct Exchange {
    // Fields drop in order: streams first, so that their resets still find a connection.
    answer: Answer,
    send: Outgoing,
    call: Box<Call>,
    uploading: bool,
    upstream: Upstream,
}

#[derive(Debug)]
enum Answer {
    Awaited(Awaited),
    Here { pump: Pump<Incoming>, seen: Seen },
}

/// What the answer says of how the call went.
#[derive(Debug)]
struct Seen {
    http: u16,
    grpc: Option<GrpcStatus>,
    /// Whether it does not know the gRPC service.
    foreign: bool,
    /// Whether its head was all of it.
    is_all: bool,
}

/// Why an exchange ended in the middle of the answer.
#[derive(Debug)]
pub enum Broken {
    /// The endpoint reset the stream: the caller gets the same code.
    Reset(Code),
    /// The connection to the endpoint was lost.
    Lost(CallError),
    /// The caller went away.
    Cancelled,
}

impl Exchange {
    /// Sends the head of `call`. The body follows as it is polled.
    ///
    /// # Errors
    /// The call comes back: the connection took nothing of it.
    pub fn begin(
        call: Box<Call>,
        mut upstream: Upstream,
        request: Request<()>,
    ) -> Result<Self, AttemptError> {
        let ends = call.upload.is_empty();
        match upstream.send_request(request, ends) {
            Ok((response, send)) => {
                call.meta.wait_for_answer();
                let answer = Answer::Awaited(response);
                Ok(Self { answer, send, call, uploading: !ends, upstream })
            }
            Err(error) => {
                let outcome = if error.is_remote_go_away() {
                    AttemptOutcome::Refused
                } else {
                    AttemptOutcome::ConnectFailed
                };
                Err(unprocessed(call, outcome, &error))
            }
        }
    }

    /// What is known about the call.
    pub const fn meta(&self) -> &Rc<CallMeta> {
        &self.call.meta
    }

    /// Waits for the head of the answer, sending the body meanwhile.
    ///
    /// # Errors
    /// [`AttemptError`] tells whether the call may be tried again; it then brings the call back.
    /// Take nothing from the exchange afterwards.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failed>> {
        let pieces = self.call.upload.pieces();
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(Failed::of_upload(&error)));
        }
        if self.call.upload.pieces() != pieces {
            self.call.meta.wait_for_answer();
        }
        let response = self.poll_answer(cx, |answer, cx| match answer {
            Answer::Awaited(response) => response.poll(cx),
            Answer::Here { .. } => unreachable!("polled for a head again after it had come"),
        });
        match ready!(response) {
            Ok((head, body)) => {
                if let Some(fault) = fault(&head) {
                    return Poll::Ready(Err(Failed::Malformed(fault)));
                }
                let seen = Seen::new(&head, &body);
                let is_grpc = self.call.meta.kind == Kind::Grpc;
                let pump = Pump::new(body, is_grpc, self.call.meta.downstream.is_under_pressure());
                self.answer = Answer::Here { pump, seen };
                Poll::Ready(Ok(head))
            }
            Err(error) => Poll::Ready(Err(Failed::Upstream(error))),
        }
    }

    /// Waits for what follows the head: a piece of the body, or the end. Nothing of it is taken.
    ///
    /// # Errors
    /// As for [`Self::poll_head`].
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(Failed::of_upload(&error)));
        }
        let first = self.poll_answer(cx, |answer, cx| match answer {
            Answer::Here { pump, .. } => pump.poll_first(cx),
            Answer::Awaited(_) => Poll::Pending,
        });
        first.map_err(Failed::Broken)
    }

    /// Whether the call has been sent whole.
    pub const fn is_sent(&self) -> bool {
        !self.uploading
    }

    /// Whether the call can be sent again: all that was sent of it is still there.
    pub fn can_rewind(&self) -> bool {
        self.call.upload.can_rewind()
    }

    /// Trailers of an answer that has turned out to have nothing else behind its head; empty where it
    /// does not even have those.
    pub fn ending(&mut self) -> Option<&mut HeaderMap> {
        match &mut self.answer {
            Answer::Here { pump, .. } => pump.ending(),
            Answer::Awaited(_) => None,
        }
    }

    /// Says that this answer is what the caller gets: no other attempt will follow.
    pub fn commit(&mut self) {
        self.call.upload.commit();
        if self.is_over() {
            self.finish();
        }
    }

    /// Gives the answer up for another attempt; none where [`Self::can_rewind`] denies it.
    pub fn take_back(mut self) -> Option<Box<Call>> {
        self.call.upload.rewind().then_some(self.call)
    }

    /// The gRPC status that has been seen of the answer until now.
    pub const fn status(&self) -> Option<GrpcStatus> {
        match &self.answer {
            Answer::Here { seen, .. } => seen.grpc,
            Answer::Awaited(_) => None,
        }
    }

    /// Whether the head of the answer was all of it.
    pub const fn is_over(&self) -> bool {
        matches!(&self.answer, Answer::Here { seen, .. } if seen.is_all)
    }

    /// Moves body and trailers of the answer to `down`, and what is left of the upload up. Ready once
    /// the end of the answer has been handed over, whether or not the upload had come to its end: an
    /// early answer is an answer.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), Broken>> {
        if let Poll::Ready(Err(_)) = self.poll_upload(cx) {
            return Poll::Ready(Err(Broken::Cancelled));
        }
        let pumped = self.poll_answer(cx, |answer, cx| match answer {
            Answer::Here { pump, seen } => pump.poll(cx, down, seen),
            Answer::Awaited(_) => unreachable!("polled for a body before its head had come"),
        });
        match ready!(pumped) {
            Ok(()) => {
                self.finish();
                Poll::Ready(Ok(()))
            }
            Err(Ended::Sink) => Poll::Ready(Err(Broken::Cancelled)),
            Err(Ended::Source(error)) => Poll::Ready(Err(self.broken(&error))),
        }
    }

    /// As [`Self::poll_body`], but hands nothing over: ready where the answer breaks off meanwhile.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match self.poll_first(cx) {
            Poll::Ready(Err(Failed::Broken(error))) => Poll::Ready(self.broken(&error)),
            Poll::Ready(Err(_)) => Poll::Ready(Broken::Cancelled),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Moves bytes of the connection, where that is the call's own, then the answer, for as long as there may be more.
    fn poll_answer<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Answer, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        loop {
            let there_is_more = self.upstream.poll_wire(cx, self.may_read());
            let came = poll(&mut self.answer, cx);
            self.upstream.flush(cx);
            match came {
                Poll::Pending if there_is_more && !self.answer.is_held_up() => {}
                came_or_pending => return came_or_pending,
            }
        }
    }

    /// Under pressure the answer is read piece by piece, and not at all while it waits for the caller: what has not
    /// been read stays with the endpoint.
    fn may_read(&self) -> Option<usize> {
        let under_pressure = self.call.meta.downstream.is_under_pressure();
        under_pressure.then(|| if self.answer.is_held_up() { 0 } else { PIECE })
    }

    /// Bytes of the answer that the caller has no room for, and `cx` is woken when there are more; 0 while it is the
    /// endpoint that is waited for.
    pub fn waits_for_room(&mut self, cx: &mut Context<'_>) -> u64 {
        match &mut self.answer {
            Answer::Here { pump, .. } => pump.waits_for_room(cx),
            Answer::Awaited(_) => 0,
        }
    }

    /// Whether the connection to the endpoint is shared: what comes on it cannot be left unread.
    pub const fn is_shared(&self) -> bool {
        self.upstream.is_shared()
    }

    /// Bytes of the answer that were handed over to the caller.
    pub const fn handed_over(&self) -> u64 {
        match &self.answer {
            Answer::Here { pump, .. } => pump.handed(),
            Answer::Awaited(_) => 0,
        }
    }

    /// Why the head never came, and the call, if it may be tried again.
    pub fn fail(mut self, failed: Failed) -> AttemptError {
        let error = match failed {
            Failed::Cancelled => return given_up(Reason::UpstreamReset, "the caller went away"),
            Failed::Trailers => {
                let text = "a value in the trailers begins or ends with a space";
                return given_up(Reason::BadRequest, text);
            }
            Failed::Upstream(error) => {
                if is_proof_of_no_work(&error) && self.call.upload.rewind() {
                    return unprocessed(self.call, AttemptOutcome::Refused, &error);
                }
                self.lost(&error)
            }
            Failed::Broken(error) => self.lost(&error),
            Failed::Malformed(fault) => {
                let meta = &self.call.meta;
                let (service, address) = (meta.target().view.name(), meta.address());
                let text = format!("service {service}: {address} answered with {fault}");
                CallError::new(Reason::UpstreamProtocol, text)
            }
        };
        AttemptError {
            error,
            outcome: AttemptOutcome::Reset,
            progress: Progress::MaybeProcessed(self.take_back()),
        }
    }

    /// Ends an attempt whose answer has not begun within `limit`.
    pub fn time_out(self, limit: Duration) -> AttemptError {
        self.gave_up();
        let meta = &self.call.meta;
        let (service, address) = (meta.target().view.name(), meta.address());
        let limit = humantime::format_duration(limit);
        let text = format!(
            "service {service}: the answer of {address} did not begin within {limit}, \
             see retry.per_try_timeout"
        );
        AttemptError {
            error: CallError::new(Reason::DeadlineExceeded, text),
            outcome: AttemptOutcome::Cancelled,
            progress: Progress::TimedOut(self.take_back()),
        }
    }

    /// Says that the endpoint had not answered when the call was given up.
    pub fn gave_up(&self) {
        if matches!(self.answer, Answer::Awaited(_)) {
            self.upstream.suspect();
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.uploading {
            let uploaded = ready!(self.call.upload.poll(cx, &mut self.send));
            self.uploading = false;
            return Poll::Ready(uploaded);
        }
        Poll::Ready(Ok(()))
    }

    /// Says how the endpoint answered.
    fn finish(&self) {
        if let Answer::Here { seen, .. } = &self.answer {
            seen.finish(&self.call.meta);
        }
    }

    fn broken(&self, error: &StreamError) -> Broken {
        match error.reason() {
            // Passed on, NO_ERROR would be taken for a clean end by many clients.
            Some(Code::NO_ERROR) => Broken::Lost(self.lost(error)),
            Some(code) if error.is_remote_reset() => Broken::Reset(code),
            _ => Broken::Lost(self.lost(error)),
        }
    }

    fn lost(&self, error: &StreamError) -> CallError {
        let meta = &self.call.meta;
        let (service, address) = (meta.target().view.name(), meta.address());
        if error.is_malformed() {
            let text = format!("service {service}: {address} sent what is not HTTP/2: {error}");
            return CallError::new(Reason::UpstreamProtocol, text);
        }
        let rest = if self.call.terms.hold { "" } else { ", so it was not tried again" };
        let text = format!(
            "service {service}: {address} broke off after the call was sent ({error}); \
             it may have been processed{rest}"
        );
        CallError::new(Reason::UpstreamReset, text)
    }
}

/// Why the head of an answer did not come.
#[derive(Debug)]
pub enum Failed {
    /// The endpoint, or the connection to it, ended the stream before the head,
    Upstream(StreamError),
    /// or behind it.
    Broken(StreamError),
    /// The head is there, with this fault.
    Malformed(&'static str),
    /// The caller went away.
    Cancelled,
    /// The caller's trailers are malformed.
    Trailers,
}

impl Failed {
    fn of_upload(error: &StreamError) -> Self {
        if error.is_found_here() { Self::Trailers } else { Self::Cancelled }
    }
}

/// RFC 9113 section 8.7: REFUSED_STREAM, and streams above the last one that a GOAWAY names, were not
/// processed. h2 reports a received GOAWAY on exactly those streams; streams that a GOAWAY covers
/// end with their connection, as an I/O error.
fn is_proof_of_no_work(error: &StreamError) -> bool {
    error.is_remote_go_away()
        || (error.is_remote_reset() && error.reason() == Some(Code::REFUSED_STREAM))
}

/// It is the caller's doing that there was no answer.
fn given_up(reason: Reason, text: &'static str) -> AttemptError {
    AttemptError {
        error: CallError::new(reason, text),
        outcome: AttemptOutcome::Cancelled,
        progress: Progress::MaybeProcessed(None),
    }
}

fn unprocessed(call: Box<Call>, outcome: AttemptOutcome, error: &StreamError) -> AttemptError {
    let (service, address) = (call.meta.target().view.name(), call.meta.address());
    let text = format!("service {service}: {address} did not take the call: {error}");
    let error = CallError::new(Reason::ConnectFailed, text);
    AttemptError { error, outcome, progress: Progress::Unprocessed(call) }
}

impl Answer {
    /// Whether it waits for the caller to take some of it.
    const fn is_held_up(&self) -> bool {
        matches!(self, Self::Here { pump, .. } if pump.is_held_up())
    }
}

impl Seen {
    fn new(head: &response::Parts, body: &Incoming) -> Self {
        let (http, is_all) = (head.status.as_u16(), body.is_end_stream());
        let mut seen = Self { http, grpc: None, foreign: false, is_all };
        seen.look_at(&head.headers);
        seen
    }

    /// Takes the status from a head or from trailers, where it is in there.
    fn look_at(&mut self, headers: &HeaderMap) {
        if let Some(status) = GrpcStatus::of(headers) {
            self.grpc = Some(status);
            self.foreign = is_foreign(status, headers);
        }
    }

    fn finish(&self, call: &CallMeta) {
        let grpc = self.grpc.unwrap_or(GrpcStatus::UNKNOWN);
        call.is_foreign.set(self.foreign);
        call.finish(Outcome::Answered { http: self.http, grpc });
    }
}

impl Tap for Seen {
    fn piece(&mut self, _: &Bytes) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.look_at(trailers);
    }
}
