//! Chooses an endpoint for each attempt, and decides whether there is another attempt.

mod feedback;
mod retry;

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::{Either, Ready, ready as now};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{deadline::too_late, judge, limit::refuse};
use crate::{
    balance::{Choice, PickError, Picked},
    call::{AttemptError, Call, CallError, CallMeta, Decided, Progress, Reply, Target, bounded},
    clock,
    limit::{Limit, Refusal},
    metrics::AttemptOutcome,
    model::{Endpoint, InFlight, Reason},
    route::{Shown, key},
    view::Chooser,
};

/// Most bytes of what a caller sent that a message says again.
const MOST_ECHOED: usize = 256;

/// Makes [`Balance`].
#[derive(Clone, Copy, Debug)]
pub struct BalanceLayer;

/// Runs a call's attempts, each on an endpoint that the call has not tried.
#[derive(Clone, Debug)]
pub struct Balance<S> {
    inner: S,
}

/// The attempts of a call that may be tried again although an endpoint has worked on it.
type Retried = Pin<Box<dyn Future<Output = Result<Reply, CallError>>>>;

impl<S> Layer<S> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, inner: S) -> Balance<S> {
        Balance { inner }
    }
}

impl<S> Service<Box<Call>> for Balance<S>
where
    S: Service<Box<Call>, Response = Reply, Error = AttemptError> + Clone + 'static,
    S::Future: 'static,
{
    type Response = Reply;
    type Error = CallError;
    type Future = Either<Attempts<S>, Either<Retried, Ready<Result<Reply, CallError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        note_key(&call);
        if let Err(error) = choose(&call.meta) {
            return Either::Right(Either::Right(now(Err(explain(&call.meta, error)))));
        }
        call.meta.ledger.first_attempt(call.meta.arrived);
        if retry::applies(&call) {
            return Either::Right(Either::Left(Box::pin(retry::run(self.inner.clone(), call))));
        }
        let meta = Rc::clone(&call.meta);
        let attempt = self.inner.call(call);
        Either::Left(Attempts { attempt, inner: self.inner.clone(), meta })
    }
}

/// What the call is to be kept together with, where that decides.
fn note_key(call: &Call) {
    let Call { head, meta, .. } = call;
    let policy = &meta.target().policy;
    if policy.balance.is_by_key() {
        let (hash_key, source) = (meta.hash_key.get(), meta.source);
        let shown = Shown { headers: &head.headers, path: head.uri.path(), hash_key, source };
        meta.key.set(key(&policy.hash_on, shown));
    }
}

/// Picks an endpoint and puts the call on it.
fn choose(meta: &CallMeta) -> Result<(), PickError> {
    let target = meta.target();
    let most = most_on_one(target);
    loop {
        let (endpoint, in_flight) = pick(meta, target, most)?;
        // Where another worker has just taken its last place, it is passed over the next time.
        if let Some(in_flight) = in_flight {
            put_on(meta, endpoint, in_flight);
            return Ok(());
        }
    }
}

/// The next attempt is on this endpoint.
fn put_on(meta: &CallMeta, endpoint: Arc<Endpoint>, in_flight: InFlight) {
    *meta.in_flight.borrow_mut() = Some(in_flight);
    meta.tried.borrow_mut().push(endpoint);
}

/// Picks an endpoint, and takes a place on it if there is one left.
fn pick(
    meta: &CallMeta,
    target: &Target,
    most: u32,
) -> Result<(Arc<Endpoint>, Option<InFlight>), PickError> {
    let (tried, key) = (meta.tried.borrow(), meta.key.get());
    if let Some(pin) = meta.pin.get() {
        let endpoint = pinned(target, pin, &tried, most)?;
        let in_flight = endpoint.load.try_pick(most);
        return Ok((endpoint, in_flight));
    }
    let choice = target.view.choice(&target.selectors, &target.policy);
    let picked = match most {
        0 => choice.pick(key, &tried),
        most => choice.pick_where(key, &tried, |endpoint| endpoint.load.has_room(most)),
    };
    note_decision(meta, &choice, picked.as_ref().ok().map(|picked| picked.rule));
    Ok(hold(&choice, picked?, most))
}

/// Takes a place on what was picked, if there is one left.
fn hold(choice: &Chooser, picked: Picked<'_>, most: u32) -> (Arc<Endpoint>, Option<InFlight>) {
    let (endpoint, rule) = (Arc::clone(picked.endpoint), picked.rule);
    let in_flight = picked.hold(most);
    if in_flight.is_some() {
        choice.count(rule);
    }
    (endpoint, in_flight)
}

/// Notes by what an endpoint was picked. That there is none for a further attempt says nothing of the
/// one before.
fn note_decision(meta: &CallMeta, choice: &Choice, rule: Option<usize>) {
    if rule.is_none() && meta.attempt() > 0 {
        return;
    }
    let stages = choice.stages();
    meta.decided.replace(Some(Decided { stages, rule }));
    if meta.explain.get() {
        // Remembered with the stages: later the endpoints may be in other states.
        drop(meta.dropped());
    }
}

/// Whether there is an endpoint that the call has not tried.
fn has_another(meta: &CallMeta) -> bool {
    let (target, tried) = (meta.target(), meta.tried.borrow());
    match meta.pin.get() {
        Some(pin) => pinned(target, pin, &tried, 0).is_ok(),
        None => target
            .view
            .choice(&target.selectors, &target.policy)
            .pick(meta.key.get(), &tried)
            .is_ok(),
    }
}

/// Calls that one endpoint may hold; 0 for any number.
fn most_on_one(target: &Target) -> u32 {
    target.policy.limits.as_ref().map_or(0, |limits| limits.max_in_flight_per_endpoint)
}

/// Where no endpoint is left, one that refused the call may be asked once more: a GOAWAY ends a
/// connection, not an endpoint, and a service with one endpoint must outlive it.
fn choose_again(meta: &CallMeta) -> bool {
    let refused = Arc::clone(&meta.endpoint());
    if meta.asked_again.replace(true) || refused.load.is_gone() {
        return false;
    }
    let Some(in_flight) = refused.load.try_pick(most_on_one(meta.target())) else { return false };
    put_on(meta, refused, in_flight);
    true
}

/// Where a call could connect no endpoint and none is left, one that is ejected or unhealthy is better
/// than none: it may be the only one that is up again.
fn choose_any(meta: &CallMeta) -> bool {
    let target = meta.target();
    if meta.pin.get().is_some() {
        return false;
    }
    let choice = target.view.choice(&target.selectors, &target.policy);
    let Some(picked) = choice.pick_any(&meta.tried.borrow()) else { return false };
    let (endpoint, in_flight) = hold(&choice, picked, most_on_one(target));
    let Some(in_flight) = in_flight else { return false };
    put_on(meta, endpoint, in_flight);
    true
}

/// A pin reaches what it names whatever its state, but no endpoint twice.
fn pinned(
    target: &Target,
    pin: &str,
    tried: &[Arc<Endpoint>],
    most: u32,
) -> Result<Arc<Endpoint>, PickError> {
    let pins = target.view.pins();
    let named = pins.find_pin(pin);
    let is_new = |endpoint: &&Arc<Endpoint>| {
        !tried.iter().any(|tried| tried.record.address == endpoint.record.address)
    };
    let nothing = if named.is_empty() { PickError::NoMatch } else { PickError::AllTried };
    let mut new = named.iter().filter(is_new).peekable();
    new.peek().ok_or(nothing)?;
    new.find(|endpoint| endpoint.load.has_room(most)).cloned().ok_or(PickError::Full)
}

fn explain(meta: &CallMeta, error: PickError) -> CallError {
    let target = meta.target();
    let name = target.view.name();
    let known = target.view.service().snapshot().endpoints.len();
    match (error, meta.pin.get()) {
        (PickError::NoEndpoints, _) => CallError::new(
            Reason::NoEndpoints,
            format!("service {name}: it has no endpoint; see `pillion services {name}`"),
        ),
        (PickError::Full, _) => {
            let allowed = most_on_one(target);
            refuse(target, Refusal { limit: Limit::PerEndpoint, allowed, wait: None })
        }
        (_, Some(pin)) => CallError::new(
            Reason::NoMatch,
            format!(
                "service {name}: none of its {known} endpoints is node {:?}; see `pillion services {name}`",
                bounded(pin, MOST_ECHOED)
            ),
        ),
        (_, None) => {
            let filter = bounded(target.selectors.text(), MOST_ECHOED);
            let header = match meta.filter.get() {
                Some(_) => format!(" -H 'pillion-filter: {filter}'"),
                None => String::new(),
            };
            CallError::new(
                Reason::NoMatch,
                format!(
                    "service {name}: none of its {known} endpoints can be picked with filter \
                     {filter:?}; see `pillion why {name}{header}`"
                ),
            )
        }
    }
}

pin_project_lite::pin_project! {
    /// The attempts of one call.
    #[allow(missing_debug_implementations)]
    pub struct Attempts<S: Service<Box<Call>>> {
        #[pin]
        attempt: S::Future,
        inner: S,
        meta: Rc<CallMeta>,
    }

    impl<S: Service<Box<Call>>> PinnedDrop for Attempts<S> {
        fn drop(this: Pin<&mut Self>) {
            feedback::given_up(&this.meta);
        }
    }
}

impl<S> Future for Attempts<S>
where
    S: Service<Box<Call>, Response = Reply, Error = AttemptError>,
{
    type Output = Result<Reply, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match ready!(this.attempt.as_mut().poll(cx)) {
                Ok(reply) => {
                    feedback::answered(this.meta, &reply);
                    judge::answered(this.meta, &reply);
                    return Poll::Ready(Ok(reply));
                }
                Err(failed) => {
                    feedback::failed(this.meta, failed.outcome);
                    let call = next(this.meta, failed)?;
                    this.attempt.set(this.inner.call(call));
                }
            }
        }
    }
}

/// The current attempt is over, without an answer that goes to the caller.
fn end(meta: &CallMeta, outcome: AttemptOutcome, now: Instant) {
    meta.target().view.metrics.attempt_ended(outcome);
    meta.in_flight.take();
    meta.ledger.failed(now, outcome);
}

/// The call on its next endpoint, if it may be tried again and there is one.
fn next(meta: &CallMeta, failed: AttemptError) -> Result<Box<Call>, CallError> {
    let AttemptError { error, outcome, progress } = failed;
    let target = meta.target();
    judge::failed(meta, outcome);
    let now = clock::now();
    end(meta, outcome, now);
    let Progress::Unprocessed(call) = progress else { return Err(error) };
    let attempts = meta.attempts();
    if attempts >= target.policy.attempts as usize {
        return Err(exhausted(error, attempts));
    }
    if let Some(error) = too_late(meta, &error, now) {
        return Err(error);
    }
    let is_chosen = choose(meta).is_ok()
        || match outcome {
            AttemptOutcome::Refused => choose_again(meta),
            _ => choose_any(meta),
        };
    if !is_chosen {
        return Err(exhausted(error, attempts));
    }
    meta.ledger.attempt(now);
    target.view.metrics.retried(outcome.as_str());
    Ok(call)
}

fn exhausted(mut error: CallError, attempts: usize) -> CallError {
    if attempts > 1 {
        error.message = format!(
            "{} (the last of {attempts} attempts, each on another endpoint)",
            error.message
        );
    }
    error
}
