//! The sources of the board, in their order of precedence, and how others come in their place: what a
//! source said that is no longer configured stays until its successors have spoken.

use std::sync::Arc;

use super::{
    super::{brake::Brake, status::Status},
    Board,
};
use crate::{model::ServiceName, networks::Networks};

/// One run of one source configuration; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::discovery) struct Slot(pub(in crate::discovery) u64);

/// A source as the board knows it.
#[derive(Clone, Debug)]
pub(in crate::discovery) struct Seat {
    pub(in crate::discovery) slot: Slot,
    pub(in crate::discovery) status: Arc<Status>,
    /// Whether it reads a service only when somebody asked for it.
    pub(in crate::discovery) lazy: bool,
    /// Whether its last non-empty set of a service outlives an empty one.
    pub(in crate::discovery) keep: bool,
    /// What happens when most of a service vanishes from it at once.
    pub(in crate::discovery) brake: Brake,
    /// Where its endpoints may be.
    pub(in crate::discovery) networks: Arc<Networks>,
    /// Set on a source that the configuration no longer has: its endpoints stay until these, which
    /// came in its place, have spoken.
    pub(in crate::discovery) successors: Option<Vec<Slot>>,
    /// Whether it has read everything it holds once.
    pub(in crate::discovery) complete: bool,
}

impl Board {
    /// Takes the sources of a new configuration, in their order. Those not among them any more stay
    /// behind the others until their successors have spoken.
    pub(in crate::discovery) fn seat(&mut self, mut seats: Vec<Seat>) {
        let current: Vec<_> = seats.iter().map(|seat| seat.slot).collect();
        let new = current.iter().filter(|slot| !self.seats.iter().any(|old| old.slot == **slot));
        let new: Vec<_> = new.copied().collect();
        for mut old in self.seats.drain(..) {
            match seats.iter_mut().find(|seat| seat.slot == old.slot) {
                Some(seat) => seat.complete = old.complete,
                None => {
                    old.successors.get_or_insert_with(Vec::new).extend(&new);
                    seats.push(old);
                }
            }
        }
        // A successor that has gone itself is not waited for.
        for successors in seats.iter_mut().filter_map(|seat| seat.successors.as_mut()) {
            successors.retain(|slot| current.contains(slot));
        }
        self.seats = seats;
        self.all_services(Self::refresh_all);
        self.release_all();
    }

    pub(super) fn remove_table(&mut self, slot: Slot, service: &ServiceName) {
        let heir = self.heir(slot).map(|heir| (heir.slot, heir.brake));
        let Some(merged) = self.services.get_mut(service) else { return };
        let Some(at) = merged.tables.iter().position(|(owner, _)| *owner == slot) else { return };
        let (_, table) = merged.tables.swap_remove(at);
        if let Some(seat) = self.seats.iter().find(|seat| seat.slot == slot) {
            seat.status.rejected(table.rejected_count(), 0);
        }
        let mut addresses: Vec<_> = table.addresses().cloned().collect();
        match heir {
            Some((heir, brake)) => merged.held.inherit(slot, heir, brake),
            None => addresses.extend(merged.held.release(slot)),
        }
        let changed = merged.refresh(addresses, &self.seats, None) || table.rejected_count() > 0;
        self.note(service, changed);
    }

    /// The source that has come in the place of one that is no longer configured like that.
    fn heir(&self, slot: Slot) -> Option<&Seat> {
        let seat = self.seats.iter().find(|seat| seat.slot == slot)?;
        seat.successors.as_ref()?;
        let is_heir =
            |other: &&Seat| other.successors.is_none() && other.status.name() == seat.status.name();
        self.seats.iter().find(is_heir)
    }

    /// Looks up every address of a service again: the order of the sources has changed.
    fn refresh_all(&mut self, service: &ServiceName) {
        let Some(merged) = self.services.get_mut(service) else { return };
        let tables = merged.tables.iter().flat_map(|(_, table)| table.addresses());
        let addresses = tables.cloned().collect();
        let changed = merged.refresh(addresses, &self.seats, None);
        self.note(service, changed);
    }

    /// Lets the sources that are no longer configured go, as far as their successors have spoken.
    pub(super) fn release_all(&mut self) {
        if self.seats.iter().all(|seat| seat.successors.is_none()) {
            return;
        }
        self.all_services(Self::release);
        let services = &self.services;
        self.seats.retain(|seat| {
            seat.successors.is_none() || services.values().any(|merged| merged.has(seat.slot))
        });
    }

    pub(super) fn release(&mut self, service: &ServiceName) {
        let Some(merged) = self.services.get(service) else { return };
        let has_spoken = |slot: &Slot| match self.seats.iter().find(|seat| seat.slot == *slot) {
            // Nobody asks a lazy source for what nobody calls.
            Some(seat) if seat.lazy => {
                merged.listed.contains(slot) || !self.directory.is_asked(service)
            }
            Some(seat) => seat.complete,
            None => true,
        };
        let leaving = self.seats.iter().filter(|seat| {
            seat.successors.as_ref().is_some_and(|successors| successors.iter().all(has_spoken))
        });
        for slot in leaving.map(|seat| seat.slot).collect::<Vec<_>>() {
            self.remove_table(slot, service);
        }
    }

    fn all_services(&mut self, act: impl Fn(&mut Self, &ServiceName)) {
        for service in self.services.keys().cloned().collect::<Vec<_>>() {
            act(self, &service);
        }
    }
}
