//! All that the sources say, merged into one snapshot a service.
//!
//! Source tasks bring lists and changes; the board keeps a [`Table`] for each source and service, looks
//! up again only the addresses that an update touched, and publishes to the [`Directory`]. Endpoints
//! of one service are merged by address: the first source in the order of the configuration wins.
//! An update is applied whole before anything is published, an update that changes nothing publishes
//! nothing, and no error reaches this place, so that no error can change a set.

mod merged;
mod publish;
mod seats;
mod suspects;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use merged::Merged;
pub(super) use seats::{Seat, Slot};

use super::{
    directory::Directory,
    state::Sets,
    status::Status,
    table::{Change, Listing, Table, Touched},
};
use crate::model::ServiceName;

#[derive(Debug)]
pub(super) struct Board {
    directory: Directory,
    burst: Duration,
    /// In the order of precedence.
    seats: Vec<Seat>,
    services: HashMap<ServiceName, Merged>,
    /// Services that changed since they were published.
    dirty: HashSet<ServiceName>,
    /// Services with suspects.
    braked: HashSet<ServiceName>,
}

impl Board {
    pub(super) fn new(directory: Directory, burst: Duration) -> Self {
        let (seats, services) = (Vec::new(), HashMap::new());
        let (dirty, braked) = (HashSet::new(), HashSet::new());
        Self { directory, burst, seats, services, dirty, braked }
    }

    /// Applies changes of one service. With `hold`, publishing waits that long for more.
    pub(super) fn apply(
        &mut self,
        slot: Slot,
        service: &ServiceName,
        changes: Vec<Change>,
        hold: Option<Instant>,
    ) {
        self.update(slot, service, |table| table.apply(changes));
        if let Some(merged) = self.services.get_mut(service) {
            merged.hold = hold;
        }
    }

    /// Makes what a source holds of one service equal to a list. Says whether that changed anything.
    pub(super) fn list(&mut self, slot: Slot, service: &ServiceName, listing: Listing) -> bool {
        let changed = self.update(slot, service, |table| table.replace(listing));
        let Some(merged) = self.services.get_mut(service) else { return false };
        if !merged.listed.contains(&slot) {
            merged.listed.push(slot);
        }
        merged.hold = None;
        self.release(service);
        self.publish(service, Instant::now());
        changed
    }

    /// Makes all that a source holds equal to a list of `revision`; services not in it have no key any
    /// more. Says whether that changed anything.
    pub(super) fn list_all(
        &mut self,
        slot: Slot,
        mut listings: HashMap<ServiceName, Listing>,
        revision: i64,
    ) -> bool {
        let mine = |merged: &Merged| merged.tables.iter().any(|(owner, _)| *owner == slot);
        let gone = self.services.iter().filter(|(_, merged)| mine(merged));
        for service in gone.map(|(service, _)| service.clone()).collect::<Vec<_>>() {
            let nothing = || Listing { revision, ..Listing::default() };
            listings.entry(service).or_insert_with(nothing);
        }
        let mut changed = false;
        for (service, listing) in listings {
            changed |= self.update(slot, &service, |table| table.replace(listing));
        }
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.slot == slot) {
            seat.complete = true;
        }
        self.release_all();
        for service in self.dirty.clone() {
            self.publish(&service, Instant::now());
        }
        changed
    }

    /// Forgets what lazy sources said of a service that nobody calls. Whoever still holds the service
    /// is told to ask again.
    pub(super) fn drop_service(&mut self, service: &ServiceName) {
        let lazy: HashSet<_> =
            self.seats.iter().filter(|seat| seat.lazy).map(|seat| seat.slot).collect();
        for slot in &lazy {
            self.remove_table(*slot, service);
        }
        self.directory.remove(service);
        let Some(merged) = self.services.get_mut(service) else { return };
        merged.listed.clear();
        merged.published = None;
        if merged.is_known() {
            self.dirty.insert(service.clone());
            self.publish(service, Instant::now());
        } else {
            self.services.remove(service);
            self.dirty.remove(service);
        }
    }

    /// Takes sets that an earlier process has saved, of services that the source has said nothing of
    /// yet. Says which.
    pub(super) fn restore(
        &mut self,
        slot: Slot,
        saved: Vec<(ServiceName, Listing)>,
    ) -> Vec<ServiceName> {
        let complete = self.seats.iter().any(|seat| seat.slot == slot && seat.complete);
        let mut restored = Vec::new();
        for (service, listing) in saved {
            let listed = |merged: &Merged| merged.listed.contains(&slot);
            if !complete && !self.services.get(&service).is_some_and(listed) {
                self.update(slot, &service, |table| table.replace(listing));
                self.publish(&service, Instant::now());
                restored.push(service);
            }
        }
        restored
    }

    /// How a source is doing, if it is one.
    pub(super) fn status(&self, slot: Slot) -> Option<Arc<Status>> {
        let seat = self.seats.iter().find(|seat| seat.slot == slot);
        seat.map(|seat| Arc::clone(&seat.status))
    }

    /// All that a source holds.
    pub(super) fn sets(&self, slot: Slot) -> Sets {
        let mine = |(service, merged): (&ServiceName, &Merged)| {
            let table = merged.get(slot)?;
            Some((service.clone(), table.revision, table.kept().collect()))
        };
        self.services.iter().filter_map(mine).collect()
    }

    /// Whether anything that a source said of a service is in use; with none, of any service.
    pub(super) fn holds(&self, slot: Slot, service: Option<&ServiceName>) -> bool {
        let is_held = |merged: &Merged| merged.get(slot).is_some_and(Table::is_known);
        match service {
            Some(service) => self.services.get(service).is_some_and(is_held),
            None => self.services.values().any(is_held),
        }
    }

    /// Runs an update of one table, and looks up again what it touched. Says whether the service
    /// changed.
    fn update(
        &mut self,
        slot: Slot,
        service: &ServiceName,
        update: impl FnOnce(&mut Table) -> Touched,
    ) -> bool {
        // A task that was ended may have been in the middle of something.
        let Some(seat) = self.seats.iter().find(|seat| seat.slot == slot) else { return false };
        let merged = self.services.entry(service.clone()).or_default();
        let table = merged.table(seat);
        let before = table.rejected_count();
        let touched = update(table);
        seat.status.rejected(before, table.rejected_count());
        let mut changed = touched.rejected;
        let (was_braked, known) = (merged.held.is_braked(), merged.endpoints.len());
        changed |= merged.refresh(touched.addresses, &self.seats, Some(seat));
        if changed {
            seat.status.touch();
        }
        if !was_braked && merged.held.is_braked() {
            let (source, suspects) = (seat.status.name(), merged.held.count());
            tracing::error!(%source, %service, suspects, known,
                "most of a service vanished at once: its endpoints are kept and dialled");
            seat.status.count_brake();
            self.braked.insert(service.clone());
            // The registry may have it all again, or never have lost it.
            self.directory.doubt(service);
        }
        self.note(service, changed);
        changed
    }
}

#[cfg(test)]
mod tests;
