//! Refuses what this proxy will not take on: calls that arrive long after it was told to stop, those that
//! the listener found something wrong with, and calls beyond `max_in_flight`.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError},
    drain::Drain,
    limit::Gates,
    model::Reason,
};

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
        if let Some(error) = call.meta.refused.take() {
            return Either::Right(ready(Err(*error)));
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
