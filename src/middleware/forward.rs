//! Exchanges the call with its endpoint, as far as the head of the answer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request};
use tokio::time::Instant;
use tower::Service;

use super::headers::PILLION_ATTEMPT;
use crate::{
    call::{AttemptError, Call, Exchange, Reply},
    connect::Upstream,
    grpc_timeout::{self, GRPC_TIMEOUT},
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
        let request = request(&call);
        match Exchange::begin(call, upstream, request) {
            Ok(exchange) => Forwarding { exchange: Some(Box::new(exchange)), failed: None },
            Err(failed) => Forwarding { exchange: None, failed: Some(failed) },
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
    if let Some(deadline) = call.meta.deadline.get() {
        let left = deadline.saturating_duration_since(Instant::now());
        headers.insert(GRPC_TIMEOUT, grpc_timeout::format(left));
    }
    request
}

/// An attempt whose answer has not begun.
#[derive(Debug)]
pub struct Forwarding {
    exchange: Option<Box<Exchange>>,
    failed: Option<AttemptError>,
}

impl Future for Forwarding {
    type Output = Result<Reply, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(exchange) = &mut self.exchange else {
            return match self.failed.take() {
                Some(failed) => Poll::Ready(Err(failed)),
                None => Poll::Pending,
            };
        };
        let head = ready!(exchange.poll_head(cx));
        let Some(exchange) = self.exchange.take() else { return Poll::Pending };
        Poll::Ready(match head {
            Ok(head) => {
                exchange.meta().ledger.answered(Instant::now());
                Ok(Reply { head, exchange, deadline: None })
            }
            Err(failed) => Err(exchange.fail(failed)),
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.gave_up();
        }
    }
}
