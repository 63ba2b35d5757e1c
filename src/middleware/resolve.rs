//! Finds the service: authority, route, snapshot.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{Either, Ready as Now, ready as now};
use tower::{Layer, Service};

use super::deadline;
use crate::{
    call::{Call, CallError, CallMeta, Target},
    clock,
    config::{DirectResponse, Policy},
    discovery::{Directory, ResolveError},
    live::{Effective, Followed},
    model::{self, Reason, ServiceName, ServiceNameError},
    route::{Asked, Decision, Rule},
    view::{ServiceView, Views},
};

/// Makes [`Resolve`].
#[derive(Clone, Debug)]
pub struct ResolveLayer(Rc<Lookup>);

/// Decides which service a call is for.
#[derive(Clone, Debug)]
pub struct Resolve<S> {
    inner: S,
    lookup: Rc<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    live: Rc<Followed>,
    directory: Directory,
    views: Rc<Views>,
}

impl ResolveLayer {
    /// Decides by `live`, and asks `directory` about services that `views` has not met.
    pub fn new(live: Rc<Followed>, directory: Directory, views: Rc<Views>) -> Self {
        Self(Rc::new(Lookup { live, directory, views }))
    }
}

impl<S> Layer<S> for ResolveLayer {
    type Service = Resolve<S>;

    fn layer(&self, inner: S) -> Resolve<S> {
        Resolve { inner, lookup: Rc::clone(&self.0) }
    }
}

impl<S: Service<Box<Call>, Error = CallError> + Clone> Service<Box<Call>> for Resolve<S> {
    type Response = S::Response;
    type Error = CallError;
    type Future = Either<Resolving<S>, Now<Result<S::Response, CallError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Box<Call>) -> Self::Future {
        match self.lookup.decide(call) {
            Ok(Found::Known(call)) => {
                Either::Left(Resolving::Known { going: self.inner.call(call) })
            }
            Ok(Found::Unmet(call, unmet)) => {
                let lookup = Rc::clone(&self.lookup);
                let asking = Box::pin(async move { lookup.meet(call, unmet).await });
                Either::Left(Resolving::Asking { asking, inner: self.inner.clone() })
            }
            Err(error) => Either::Right(now(Err(error))),
        }
    }
}

/// A call whose route is known.
enum Found {
    /// So is its service.
    Known(Box<Call>),
    /// This worker has not met its service yet.
    Unmet(Box<Call>, Unmet),
}

/// What to go on with once the service is known.
struct Unmet {
    name: ServiceName,
    settings: Arc<Effective>,
    taken: Option<Taken>,
}

/// A route that was taken, and the policy of its way.
struct Taken {
    rule: Arc<Rule>,
    policy: Arc<Policy>,
}

impl Lookup {
    /// Finds route and service of a call, as far as this worker knows them.
    fn decide(&self, mut call: Box<Call>) -> Result<Found, CallError> {
        let settings = self.live.newest();
        let authority = call.head.uri.authority().map_or("", http::uri::Authority::as_str);
        let asked = Asked {
            authority,
            path: call.head.uri.path(),
            service: call.meta.service_header.get().map(|service| &**service),
            headers: &call.head.headers,
            hash_key: call.meta.hash_key.get(),
            source: call.meta.source,
        };
        let routed = match settings.routes.decide(asked) {
            Ok(Decision::Forward(routed)) => routed,
            Ok(Decision::Respond(rule, respond)) => {
                let _ = call.meta.answered_by.set(Arc::clone(rule.name()));
                return Err(direct(respond));
            }
            Err(error) => return Err(unnamed(authority, error)),
        };
        let met = match self.views.get(routed.service) {
            Some(view) => Ok(view),
            None => Err(routed.service.parse().map_err(|error| unnamed(authority, error))?),
        };
        let taken = routed
            .rule
            .map(|(rule, way)| Taken { rule: Arc::clone(rule), policy: Arc::clone(&way.policy) });
        if let Some(Taken { rule, .. }) = &taken {
            rule.change(&mut call.head.headers);
        }
        Ok(match met {
            Ok(view) => {
                begin(&call.meta, target(&settings, view, taken, &call.meta));
                Found::Known(call)
            }
            Err(name) => Found::Unmet(call, Unmet { name, settings: Arc::clone(&settings), taken }),
        })
    }

    /// Asks discovery for a service that this worker has not met.
    async fn meet(&self, call: Box<Call>, unmet: Unmet) -> Result<Box<Call>, CallError> {
        let Unmet { name, settings, taken } = unmet;
        let policy = taken.as_ref().map_or_else(|| settings.policy(&name), |taken| &taken.policy);
        let _ = call.meta.named.set(name.clone());
        let limit = policy.connect_timeout;
        let deadline = deadline::limit(&call.head.headers, policy);
        let asked = self.ask(&name, deadline.map_or(limit, |deadline| deadline.min(limit))).await;
        let now = clock::now();
        call.meta.ledger.resolved(now);
        let service = asked.map_err(|error| match deadline {
            Some(deadline) if now - call.meta.arrived >= deadline => late(&name, deadline, &error),
            _ => error,
        })?;
        let view = self.views.get(service.name().as_str());
        let view = view.unwrap_or_else(|| self.views.add(service));
        begin(&call.meta, target(&settings, view, taken, &call.meta));
        Ok(call)
    }

    async fn ask(
        &self,
        name: &ServiceName,
        limit: Duration,
    ) -> Result<Arc<model::Service>, CallError> {
        let asked = self.directory.resolve(name, limit).await;
        asked.map_err(|error| match error {
            ResolveError::Absent(name) => CallError::new(
                Reason::NoEndpoints,
                format!(
                    "service {name}: no source knows an endpoint; see `pillion why {name}`, and \
                     whether the authority is the name that it registers under"
                ),
            ),
            ResolveError::Unavailable { .. } => CallError::new(
                Reason::RegistryUnavailable,
                format!("{error}; the service was never seen, so there is no earlier set to serve"),
            ),
        })
    }
}

/// What the caller is told whose time was over before anyone knew the service.
fn late(name: &ServiceName, deadline: Duration, error: &CallError) -> CallError {
    let deadline = humantime::format_duration(deadline);
    let text =
        format!("service {name}: the deadline of {deadline} passed before it was known; {error}");
    CallError::new(Reason::DeadlineExceeded, text)
}

/// An answer that a route gives by itself.
fn direct(respond: &DirectResponse) -> CallError {
    let error = CallError::new(Reason::DirectResponse, respond.message.clone());
    CallError { statuses: respond.statuses(), ..error }
}

fn unnamed(authority: &str, error: ServiceNameError) -> CallError {
    let text = format!(
        "authority {authority:?}: {error}; set the authority to the service's name, or add a \
         [[route]] for it"
    );
    CallError::new(Reason::BadAuthority, text)
}

/// The caller's filter goes before the route's, and that before the service's.
fn target(
    settings: &Effective,
    view: Rc<ServiceView>,
    taken: Option<Taken>,
    meta: &CallMeta,
) -> Target {
    let (policy, rule) = match taken {
        Some(Taken { rule, policy }) => (policy, Some(rule)),
        None => (Arc::clone(settings.policy(view.name())), None),
    };
    let selectors = Arc::clone(meta.filter.get().unwrap_or(&policy.filter));
    Target { view, policy, selectors, rule }
}

fn begin(meta: &CallMeta, target: Target) {
    target.view.service().touch();
    target.view.metrics.call_began();
    let _ = meta.target.set(target);
}

pin_project_lite::pin_project! {
    /// A call whose service is being found.
    #[project = Stage]
    #[allow(missing_debug_implementations, missing_docs)]
    pub enum Resolving<S: Service<Box<Call>>> {
        /// The service is known.
        Known { #[pin] going: S::Future },
        /// The first call of a service on this worker: the call comes back once it is known.
        Asking { asking: Pin<Box<dyn Future<Output = Result<Box<Call>, CallError>>>>, inner: S },
    }
}

impl<S: Service<Box<Call>, Error = CallError>> Future for Resolving<S> {
    type Output = Result<S::Response, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let going = match self.as_mut().project() {
                Stage::Known { going } => return going.poll(cx),
                Stage::Asking { asking, inner } => {
                    let call = ready!(asking.as_mut().poll(cx))?;
                    inner.call(call)
                }
            };
            self.set(Self::Known { going });
        }
    }
}
