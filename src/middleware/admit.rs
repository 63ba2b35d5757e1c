//! Refuses what this proxy will not take on: calls that arrive long after it was told to stop, heads
//! larger than anyone should have to carry, and calls beyond `max_in_flight`.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::HeaderMap;
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError},
    drain::Drain,
    limit::Gates,
    model::Reason,
};

/// Largest request head after HPACK: names, values and 32 bytes each (RFC 9113 section 6.5.2).
/// A head larger than this, up to 1 MiB, is refused on its stream; h2 refuses larger ones with 431.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Makes [`Admit`].
#[derive(Clone, Debug)]
pub struct AdmitLayer(Rc<Drain>, Gates);

/// Refuses calls beyond the limits of this proxy.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    inner: S,
    drain: Rc<Drain>,
    gates: Gates,
}

impl AdmitLayer {
    /// Watches `drain`, and how many calls `gates` lets in.
    pub const fn new(drain: Rc<Drain>, gates: Gates) -> Self {
        Self(drain, gates)
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, drain: Rc::clone(&self.0), gates: self.1.clone() }
    }
}

impl<S: Service<Box<Call>, Error = CallError>> Service<Box<Call>> for Admit<S> {
    type Response = S::Response;
    type Error = CallError;
    type Future = Either<S::Future, Ready<Result<S::Response, CallError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        if self.drain.refuses_calls() {
            let text = "this proxy is stopping; connect again and retry";
            return Either::Right(ready(Err(CallError::new(Reason::Draining, text))));
        }
        let bytes = header_bytes(&call.head.headers);
        if bytes > MAX_HEADER_BYTES {
            let text =
                format!("metadata of {bytes} bytes, at most {MAX_HEADER_BYTES} are let through");
            return Either::Right(ready(Err(CallError::new(Reason::Overloaded, text))));
        }
        match self.gates.enter() {
            Ok(place) => call.meta.places.borrow_mut().extend(place),
            Err(most) => {
                let text =
                    format!("{most} calls are in flight through this proxy; see max_in_flight");
                return Either::Right(ready(Err(CallError::overloaded(text, None))));
            }
        }
        Either::Left(self.inner.call(call))
    }
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}
