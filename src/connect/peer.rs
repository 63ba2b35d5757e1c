//! Whom a connection leads to: calls share connections, and take those made ahead, only where it leads to
//! the same endpoint by the same terms. No policy without TLS can so get hold of the connections of one
//! with it, or the other way round.

use std::{ptr, sync::Arc};

use crate::{
    model::{Endpoint, Load},
    tls::Terms,
};

/// An endpoint, and the terms by which it is spoken to; it keeps [`Key`] from being used again.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    load: Arc<Load>,
    terms: Option<Arc<Terms>>,
}

/// What a [`Peer`] is found by. [`Load`] lives as long as the endpoint is in its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(*const Load, *const Terms);

impl Peer {
    pub(super) fn new(endpoint: &Endpoint, terms: Option<&Arc<Terms>>) -> Self {
        Self { load: Arc::clone(&endpoint.load), terms: terms.cloned() }
    }

    /// Whether no call will ask for it any more: the endpoint has left, or the terms are others now.
    pub(super) fn is_gone(&self) -> bool {
        self.load.is_gone() || self.terms.as_ref().is_some_and(|terms| terms.are_outdated())
    }
}

impl Key {
    pub(super) fn of(endpoint: &Endpoint, terms: Option<&Arc<Terms>>) -> Self {
        Self(Arc::as_ptr(&endpoint.load), terms.map_or(ptr::null(), Arc::as_ptr))
    }
}
