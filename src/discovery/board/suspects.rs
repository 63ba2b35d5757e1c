//! Endpoints that vanished with most of their service: dialled, and let go when they do not answer or have
//! been held long enough.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::brake::{Held, Outcome},
    Board,
};
use crate::model::{Endpoint, ServiceName};

impl Board {
    /// The suspects that are to be dialled: [`Self::dialled`] takes what comes of it.
    pub(in crate::discovery) fn take_undialled(&mut self) -> Vec<(ServiceName, Arc<Endpoint>)> {
        let mut all = Vec::new();
        for service in &self.braked {
            let held = self.services.get_mut(service).map(|merged| &mut merged.held);
            let suspects = held.into_iter().flat_map(Held::take_undialled);
            all.extend(suspects.map(|endpoint| (service.clone(), endpoint)));
        }
        all
    }

    /// Takes in whether a suspect answers. One that does not goes at once.
    pub(in crate::discovery) fn dialled(
        &mut self,
        service: &ServiceName,
        endpoint: &Endpoint,
        answers: bool,
    ) {
        let Some(merged) = self.services.get_mut(service) else { return };
        if merged.held.dialled(&endpoint.record.address, &endpoint.load, answers) {
            merged.remove(vec![endpoint.record.address.clone()]);
        }
        if let Some(outcome) = merged.held.outcome() {
            let Outcome { answer, silent } = outcome;
            tracing::warn!(%service, answer, silent, "endpoints that vanished have been dialled: \
                those that answer are kept for a while, the others are gone");
        }
        self.note(service, true);
    }

    /// Endpoints of a service cannot be connected: if any of them are suspects, they are dialled again.
    pub(in crate::discovery) fn doubt(&mut self, service: &ServiceName) {
        let doubted = self.services.get_mut(service).is_some_and(|merged| merged.held.doubt());
        self.note(service, doubted);
    }

    /// Lets suspects go that have been held long enough, and says when the next will have been.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for service in self.braked.iter().cloned().collect::<Vec<_>>() {
            let Some(merged) = self.services.get_mut(&service) else { continue };
            let (over, due) = merged.held.expire(now);
            next = due.into_iter().chain(next).min();
            if !over.is_empty() {
                let gone = over.len();
                tracing::warn!(%service, gone, "endpoints that vanished have been kept long enough");
                merged.remove(over);
                self.note(&service, true);
            }
        }
        let services = &self.services;
        self.braked.retain(|name| services.get(name).is_some_and(|merged| merged.held.is_braked()));
        next
    }
}
