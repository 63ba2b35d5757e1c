//! Finds the service: authority, route, snapshot.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::{Either, Ready as Now, ready as now};
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError, CallMeta, Target},
    discovery::{Directory, ResolveError},
    live::{Effective, Live},
    model::{self, Reason, Selectors, ServiceName},
    route::{Asked, route},
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
    live: Arc<Live>,
    directory: Directory,
    views: Rc<Views>,
}

impl ResolveLayer {
    /// Decides by `live`, and asks `directory` about services that `views` has not met.
    pub fn new(live: Arc<Live>, directory: Directory, views: Rc<Views>) -> Self {
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
        let live = self.lookup.live.load();
        let authority = call.head.uri.authority().map_or("", http::uri::Authority::as_str);
        let service = call.meta.service_header.get().map(|service| &**service);
        let asked = Asked { authority, path: call.head.uri.path(), service };
        let routed = match route(&live, asked) {
            Ok(routed) => routed,
            Err(error) => {
                let text = format!(
                    "authority {authority:?}: {error}; set the authority to the service's name, \
                     or add a [[route]] for it"
                );
                return Either::Right(now(Err(CallError::new(Reason::BadAuthority, text))));
            }
        };
        if let Some(view) = self.lookup.views.get(routed.service) {
            let target = target(&live, view, routed.filter, &call.meta);
            begin(&call.meta, target);
            return Either::Left(Resolving::Known { going: self.inner.call(call) });
        }
        let name = routed.service.parse::<ServiceName>();
        let filter = routed.filter.cloned();
        let lookup = Rc::clone(&self.lookup);
        let settings = Arc::clone(&live);
        let asking = Box::pin(async move {
            let name =
                name.map_err(|error| CallError::new(Reason::BadAuthority, error.to_string()))?;
            let service = lookup.ask(&settings, name).await?;
            let view = lookup.views.get(service.name().as_str());
            let view = view.unwrap_or_else(|| lookup.views.add(service));
            begin(&call.meta, target(&settings, view, filter.as_ref(), &call.meta));
            Ok(call)
        });
        Either::Left(Resolving::Asking { asking, inner: self.inner.clone() })
    }
}

impl Lookup {
    async fn ask(
        &self,
        settings: &Effective,
        name: ServiceName,
    ) -> Result<Arc<model::Service>, CallError> {
        let limit = settings.policy(&name).connect_timeout;
        let asked = self.directory.resolve(&name, limit).await;
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

/// The caller's filter goes before the route's, and that before the service's.
fn target(
    settings: &Effective,
    view: Rc<ServiceView>,
    of_route: Option<&Arc<Selectors>>,
    meta: &CallMeta,
) -> Target {
    let policy = Arc::clone(settings.policy(view.name()));
    let selectors = meta.filter.get().or(of_route).unwrap_or(&policy.filter);
    let selectors = Arc::clone(selectors);
    Target { view, policy, selectors }
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
