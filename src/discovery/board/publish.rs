//! When what has changed goes to the directory: a revision whole, bursts together, and nothing where
//! nothing changed.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{table::Table, timing::MAX_REJECTED_SHOWN},
    Board, Merged,
};
use crate::model::{ServiceName, Snapshot};

impl Board {
    /// Publishes what may be published now, lets suspects go that have been held long enough, and says
    /// when there will be more of either.
    pub(in crate::discovery) fn flush(&mut self, now: Instant) -> Option<Instant> {
        let mut next = self.expire(now);
        for service in self.dirty.iter().cloned().collect::<Vec<_>>() {
            let due = self.services.get(&service).and_then(|merged| {
                merged.hold.max(merged.published.map(|published| published + self.burst))
            });
            match due {
                Some(due) if due > now => next = next.into_iter().chain([due]).min(),
                _ => self.publish(&service, now),
            }
        }
        next
    }

    /// Drops services that no source has known for `idle`.
    pub(in crate::discovery) fn sweep(&mut self, now: Instant, idle: Duration) {
        let vacant = |merged: &Merged| merged.vacant.is_some_and(|since| now - since >= idle);
        let gone = self.services.iter().filter(|(_, merged)| vacant(merged));
        for service in gone.map(|(service, _)| service.clone()).collect::<Vec<_>>() {
            self.dirty.remove(&service);
            let merged = self.services.remove(&service);
            if merged.is_some_and(|merged| merged.published.is_some()) {
                self.directory.remove(&service);
            }
        }
    }

    pub(super) fn note(&mut self, service: &ServiceName, changed: bool) {
        let Some(merged) = self.services.get_mut(service) else { return };
        let known = merged.is_known();
        merged.vacant = if known { None } else { merged.vacant.or_else(|| Some(Instant::now())) };
        if changed || (known && merged.published.is_none()) {
            self.dirty.insert(service.clone());
        }
    }

    pub(super) fn publish(&mut self, service: &ServiceName, now: Instant) {
        if !self.dirty.remove(service) {
            return;
        }
        let Some(merged) = self.services.get_mut(service) else { return };
        if merged.published.is_none() && !merged.is_known() {
            return;
        }
        merged.published = Some(now);
        merged.hold = None;
        let tables = || self.seats.iter().filter_map(|seat| merged.get(seat.slot));
        let snapshot = Snapshot {
            service: service.clone(),
            revision: tables().map(|table| table.revision).find(|at| *at > 0).unwrap_or(0),
            endpoints: merged.endpoints.clone(),
            rejected: tables().flat_map(Table::rejected).take(MAX_REJECTED_SHOWN).collect(),
        };
        self.directory.publish(snapshot);
    }
}
