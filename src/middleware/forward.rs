//! Exchanges the call with its endpoint, as far as the head of the answer.

mod watch;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, response};
use tower::Service;

use watch::{Ended, Watch};

use super::headers::PILLION_ATTEMPT;
use crate::{
    call::{AttemptError, Call, Exchange, Failed, Reply},
    clock,
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

    fn call(&mut self, Connected { mut call, upstream }: Connected) -> Forwarding {
        let (request, terms) = (request(&mut call, &upstream), call.terms);
        match Exchange::begin(call, upstream, request) {
            Ok(exchange) => {
                let exchange = Some(Box::new(exchange));
                Forwarding { exchange, failed: None, watch: Watch::new(terms) }
            }
            Err(failed) => Forwarding { exchange: None, failed: Some(failed), watch: None },
        }
    }
}

/// The head for this attempt. It is kept as well: the endpoint may refuse the call, and another is then
/// sent the same.
fn request(call: &mut Call, upstream: &Upstream) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = call.head.uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = call.head.take_headers();
    let headers = request.headers_mut();
    if call.meta.attempt() > 1 {
        headers.insert(PILLION_ATTEMPT, HeaderValue::from(call.meta.attempt()));
    }
    if call.terms.previous > 0 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(call.terms.previous));
    }
    if let Some(deadline) = call.meta.deadline.get() {
        let left = deadline.saturating_duration_since(clock::now());
        let mut timeout = grpc_timeout::format(left);
        // Indexed once, so that the later ones can refer to the name.
        timeout.set_sensitive(!upstream.is_first_of_many());
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    request
}

/// An attempt whose answer has not begun, or is held back.
#[derive(Debug)]
pub struct Forwarding {
    exchange: Option<Box<Exchange>>,
    failed: Option<AttemptError>,
    watch: Option<Box<Watch>>,
}

impl Future for Forwarding {
    type Output = Result<Reply, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { exchange: going, failed, watch } = &mut *self;
        let Some(exchange) = going else {
            return match failed.take() {
                Some(failed) => Poll::Ready(Err(failed)),
                None => Poll::Pending,
            };
        };
        let head = match watch {
            Some(watch) => ready!(watch.poll_head(cx, exchange)),
            None => ready!(poll_head(cx, exchange)).map_err(Ended::Failed),
        };
        let Some(exchange) = going.take() else { return Poll::Pending };
        Poll::Ready(match head {
            Ok(head) => Ok(Reply { head, exchange, deadline: None }),
            Err(Ended::Failed(failed)) => Err(exchange.fail(failed)),
            Err(Ended::Late(limit)) => Err(exchange.time_out(limit)),
        })
    }
}

/// Waits for the head of an answer that is the caller's whatever it says.
fn poll_head(
    cx: &mut Context<'_>,
    exchange: &mut Exchange,
) -> Poll<Result<response::Parts, Failed>> {
    let head = ready!(exchange.poll_head(cx))?;
    exchange.meta().ledger.answered(clock::now());
    exchange.commit();
    Poll::Ready(Ok(head))
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.gave_up();
        }
    }
}
