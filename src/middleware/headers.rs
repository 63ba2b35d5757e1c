//! Reads and removes the headers that speak to this proxy, and those that end at every hop.

mod via;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderName, HeaderValue, header::HOST, request, uri};
use smallvec::SmallVec;
use tower::{Layer, Service};

use crate::{
    call::{Call, CallError, CallMeta},
    live::Followed,
    model::{Reason, Selectors, stable_hash},
};

/// Number of the attempt, sent upstream: 1 until `forward` writes a greater one.
pub(super) const PILLION_ATTEMPT: HeaderName = HeaderName::from_static("pillion-attempt");

/// Headers that have another value with each call. They are sent without being indexed (RFC 7541 section
/// 6.2.3): they would push what repeats out of the peer's table and ours, and h2 compares a value with
/// all those of the same name in its table.
const EACH_ANOTHER: [&str; 4] = ["traceparent", "tracestate", "grpc-trace-bin", "x-request-id"];

/// Makes [`Headers`].
#[derive(Clone, Debug)]
pub struct HeadersLayer(Rc<Followed>);

/// Reads headers meant for the proxy, and writes those that say who calls.
#[derive(Clone, Debug)]
pub struct Headers<S> {
    inner: S,
    live: Rc<Followed>,
}

impl HeadersLayer {
    /// Says who calls as the newest settings have it.
    pub const fn new(live: Rc<Followed>) -> Self {
        Self(live)
    }
}

impl<S> Layer<S> for HeadersLayer {
    type Service = Headers<S>;

    fn layer(&self, inner: S) -> Headers<S> {
        Headers { inner, live: Rc::clone(&self.0) }
    }
}

impl<S: Service<Box<Call>, Error = CallError>> Service<Box<Call>> for Headers<S> {
    type Response = S::Response;
    type Error = CallError;
    type Future = Either<S::Future, Ready<Result<S::Response, CallError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Box<Call>) -> Self::Future {
        let read = take_authority(&mut call.head, &call.meta)
            .and_then(|()| take_ours(&mut call.head, &call.meta));
        if let Err(error) = read {
            return Either::Right(ready(Err(error)));
        }
        // Here rather than with the attempt, most of which are the first.
        call.head.headers.insert(PILLION_ATTEMPT, HeaderValue::from_static("1"));
        for (name, value) in &self.live.newest().caller {
            call.head.headers.insert(name.clone(), value.clone());
        }
        Either::Left(self.inner.call(call))
    }
}

/// Leaves the authority as it came, less a node, and without a `host` beside it.
fn take_authority(head: &mut request::Parts, meta: &CallMeta) -> Result<(), CallError> {
    let host = head.headers.remove(HOST);
    let authority = head.uri.authority().map(uri::Authority::as_str);
    let asked = match (authority, &host) {
        (Some(authority), _) => authority,
        (None, Some(host)) => {
            let host = host.to_str().unwrap_or_default();
            let _ = meta.host.set(host.into());
            host
        }
        (None, None) => "",
    };
    let (service, node) = crate::route::split_node(asked);
    if authority.is_some() && node.is_none() {
        return Ok(());
    }
    if let Some(node) = node {
        let _ = meta.pin.set(node.into());
    }
    // A call without an authority is let through: a route or header may still name its service.
    let service = if service.is_empty() { "localhost" } else { service };
    let rebuilt = uri::Authority::try_from(service).map_err(|_| bad_authority(asked)).and_then(
        |authority| with_authority(&head.uri, authority).ok_or_else(|| bad_authority(asked)),
    )?;
    head.uri = rebuilt;
    Ok(())
}

fn with_authority(uri: &http::Uri, authority: uri::Authority) -> Option<http::Uri> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(authority);
    parts.scheme.get_or_insert(uri::Scheme::HTTP);
    parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
    http::Uri::from_parts(parts).ok()
}

fn bad_authority(authority: &str) -> CallError {
    let text =
        format!("authority {authority:?} is not a service name; set it to the service's name");
    CallError::new(Reason::BadAuthority, text)
}

/// Takes every `pillion-*` header off, and remembers those that mean something.
fn take_ours(head: &mut request::Parts, meta: &CallMeta) -> Result<(), CallError> {
    let headers = &mut head.headers;
    let mut ours = SmallVec::<[HeaderName; 4]>::new();
    for (name, value) in headers.iter_mut() {
        let text = name.as_str();
        if text.starts_with("pillion-") {
            ours.push(name.clone());
        } else if EACH_ANOTHER.contains(&text) {
            value.set_sensitive(true);
        }
    }
    for name in ours {
        let Some(value) = headers.remove(&name) else { continue };
        let text = value.to_str().unwrap_or_default();
        match name.as_str() {
            "pillion-service" => drop(meta.service_header.set(text.into())),
            "pillion-node" => drop(meta.pin.set(text.into())),
            "pillion-filter" => drop(meta.filter.set(selectors(&value, text)?)),
            "pillion-hash-key" => meta.hash_key.set(Some(stable_hash(value.as_bytes()))),
            "pillion-explain" => meta.explain.set(true),
            "pillion-attempt" => via::mark(headers, &head.uri)?,
            _ => {}
        }
    }
    Ok(())
}

fn selectors(value: &HeaderValue, text: &str) -> Result<Arc<Selectors>, CallError> {
    let parsed = if text.is_empty() && !value.is_empty() {
        Err("it is not text".to_owned())
    } else {
        text.parse::<Selectors>().map_err(|error| error.to_string())
    };
    parsed.map(Arc::new).map_err(|error| {
        CallError::new(Reason::BadFilter, format!("header pillion-filter: {error}"))
    })
}
