//! Exchanges the call with its endpoint, as far as the head of the answer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, response};
use tokio::time::Instant;
use tower::Service;

use super::headers::PILLION_ATTEMPT;
use crate::{
    alarm::Alarm,
    call::{AttemptError, Call, Exchange, Failed, Reply},
    connect::Upstream,
    grpc_timeout::{self, GRPC_TIMEOUT},
    retry::PREVIOUS_ATTEMPTS,
};

/// A call and the connection to send it on.
#[derive(Debug)]
pub struct Connected {
    /// What to send.
    pub call: Box<Call>,
    /// Where.
    pub upstream: Upstream,
}

/// Sends a call to its endpoint: the end of the path.
#[derive(Clone, Copy, Debug)]
pub struct Forward;

impl Service<Connected> for Forward {
    type Response = Reply;
    type Error = AttemptError;
    type Future = Forwarding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Connected { call, upstream }: Connected) -> Forwarding {
        let (request, terms) = (request(&call), call.terms);
        match Exchange::begin(call, upstream, request) {
            Ok(exchange) => {
                let limit = terms.limit.map(|limit| (limit, Alarm::after(limit)));
                let exchange = Some(Box::new(exchange));
                Forwarding { exchange, failed: None, hold: terms.hold, limit, held: None }
            }
            Err(failed) => Forwarding {
                exchange: None,
                failed: Some(failed),
                hold: false,
                limit: None,
                held: None,
            },
        }
    }
}

/// The head for this attempt. Kept headers are copied: the endpoint may refuse the call, and another
/// is then sent the same.
fn request(call: &Call) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = call.head.uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = call.head.headers.clone();
    let headers = request.headers_mut();
    if call.meta.attempt() > 1 {
        headers.insert(PILLION_ATTEMPT, HeaderValue::from(call.meta.attempt()));
    }
    if call.terms.previous > 0 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(call.terms.previous));
    }
    if let Some(deadline) = call.meta.deadline.get() {
        let left = deadline.saturating_duration_since(Instant::now());
        headers.insert(GRPC_TIMEOUT, grpc_timeout::format(left));
    }
    request
}

/// An attempt whose answer has not begun, or is held back.
#[derive(Debug)]
pub struct Forwarding {
    exchange: Option<Box<Exchange>>,
    failed: Option<AttemptError>,
    hold: bool,
    /// How long it may take, and the end of that.
    limit: Option<(Duration, Alarm)>,
    /// The head, while it is held back.
    held: Option<Box<response::Parts>>,
}

impl Future for Forwarding {
    type Output = Result<Reply, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(head) = self.poll_answer(cx) {
            let Some(exchange) = self.exchange.take() else { return Poll::Pending };
            return Poll::Ready(match head {
                Ok(head) => Ok(Reply { head, exchange, deadline: None }),
                Err(failed) => Err(exchange.fail(failed)),
            });
        }
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Err(failed));
        }
        let Some((limit, timer)) = &mut self.limit else { return Poll::Pending };
        ready!(Pin::new(timer).poll(cx));
        let limit = *limit;
        match self.exchange.take() {
            Some(exchange) => Poll::Ready(Err(exchange.time_out(limit))),
            None => Poll::Pending,
        }
    }
}

impl Forwarding {
    /// Waits for the head of the answer, and while it is to be held back for what follows it.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failed>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        if self.held.is_none() {
            let head = ready!(exchange.poll_head(cx))?;
            exchange.meta().ledger.answered(Instant::now());
            let hold = self.hold && exchange.can_rewind();
            let is_all = exchange.is_over() || head.status != StatusCode::OK;
            // Until the call is sent, the endpoint may wait for more of it, and the caller for the head.
            if !hold || !(is_all || exchange.is_sent()) {
                exchange.commit();
                return Poll::Ready(Ok(head));
            }
            // Nothing behind this head matters; whoever asked to hold it decides what becomes of it.
            if is_all {
                return Poll::Ready(Ok(head));
            }
            self.held = Some(Box::new(head));
        }
        ready!(exchange.poll_first(cx))?;
        match self.held.take() {
            Some(head) => Poll::Ready(Ok(*head)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.gave_up();
        }
    }
}
