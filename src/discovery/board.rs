//! All that the sources say, merged into one snapshot a service.
//!
//! Source tasks bring lists and changes; the board keeps a [`Table`] for each source and service, looks
//! up again only the addresses that an update touched, and publishes to the [`Directory`]. Endpoints
//! of one service are merged by address: the first source in the order of the configuration wins.
//! An update is applied whole before anything is published, an update that changes nothing publishes
//! nothing, and no error reaches this place, so that no error can change a set.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::model::{Address, Endpoint, Load, ServiceName, Snapshot};
use crate::networks::Networks;

use super::{
    brake::{Brake, Held, Outcome},
    directory::Directory,
    state::Sets,
    status::Status,
    table::{Change, Listing, Table, Touched},
    timing::MAX_REJECTED_SHOWN,
};

/// One run of one source configuration; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u64);

/// A source as the board knows it.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) slot: Slot,
    pub(super) status: Arc<Status>,
    /// Whether it reads a service only when somebody asked for it.
    pub(super) lazy: bool,
    /// Whether its last non-empty set of a service outlives an empty one.
    pub(super) keep: bool,
    /// What happens when most of a service vanishes from it at once.
    pub(super) brake: Brake,
    /// Where its endpoints may be.
    pub(super) networks: Arc<Networks>,
    /// Set on a source that the configuration no longer has: its endpoints stay until these, which
    /// came in its place, have spoken.
    pub(super) successors: Option<Vec<Slot>>,
    /// Whether it has read everything it holds once.
    pub(super) complete: bool,
}

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

/// One service.
#[derive(Debug, Default)]
struct Merged {
    tables: Vec<(Slot, Table)>,
    /// In the order of the address.
    endpoints: Vec<Arc<Endpoint>>,
    held: Held,
    /// Lazy sources that have listed it.
    listed: Vec<Slot>,
    published: Option<Instant>,
    /// Not to be published before: the rest of a revision may follow.
    hold: Option<Instant>,
    /// Since when no source knows it.
    vacant: Option<Instant>,
}

impl Board {
    pub(super) fn new(directory: Directory, burst: Duration) -> Self {
        let (seats, services) = (Vec::new(), HashMap::new());
        let (dirty, braked) = (HashSet::new(), HashSet::new());
        Self { directory, burst, seats, services, dirty, braked }
    }

    /// Takes the sources of a new configuration, in their order. Those not among them any more stay
    /// behind the others until their successors have spoken.
    pub(super) fn seat(&mut self, mut seats: Vec<Seat>) {
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

    /// The suspects that are to be dialled: [`Self::dialled`] takes what comes of it.
    pub(super) fn take_undialled(&mut self) -> Vec<(ServiceName, Arc<Endpoint>)> {
        let mut all = Vec::new();
        for service in &self.braked {
            let held = self.services.get_mut(service).map(|merged| &mut merged.held);
            let suspects = held.into_iter().flat_map(Held::take_undialled);
            all.extend(suspects.map(|endpoint| (service.clone(), endpoint)));
        }
        all
    }

    /// Takes in whether a suspect answers. One that does not goes at once.
    pub(super) fn dialled(&mut self, service: &ServiceName, endpoint: &Endpoint, answers: bool) {
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
    pub(super) fn doubt(&mut self, service: &ServiceName) {
        let doubted = self.services.get_mut(service).is_some_and(|merged| merged.held.doubt());
        self.note(service, doubted);
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

    /// Publishes what may be published now, lets suspects go that have been held long enough, and says
    /// when there will be more of either.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Instant> {
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
    pub(super) fn sweep(&mut self, now: Instant, idle: Duration) {
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

    /// Lets suspects go that have been held long enough, and says when the next will have been.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
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

    fn remove_table(&mut self, slot: Slot, service: &ServiceName) {
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

    fn note(&mut self, service: &ServiceName, changed: bool) {
        let Some(merged) = self.services.get_mut(service) else { return };
        let known = merged.is_known();
        merged.vacant = if known { None } else { merged.vacant.or_else(|| Some(Instant::now())) };
        if changed || (known && merged.published.is_none()) {
            self.dirty.insert(service.clone());
        }
    }

    /// Lets the sources that are no longer configured go, as far as their successors have spoken.
    fn release_all(&mut self) {
        if self.seats.iter().all(|seat| seat.successors.is_none()) {
            return;
        }
        self.all_services(Self::release);
        let services = &self.services;
        self.seats.retain(|seat| {
            seat.successors.is_none() || services.values().any(|merged| merged.has(seat.slot))
        });
    }

    fn release(&mut self, service: &ServiceName) {
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

    fn publish(&mut self, service: &ServiceName, now: Instant) {
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

impl Merged {
    fn get(&self, slot: Slot) -> Option<&Table> {
        self.tables.iter().find(|(owner, _)| *owner == slot).map(|(_, table)| table)
    }

    fn has(&self, slot: Slot) -> bool {
        self.get(slot).is_some()
    }

    fn table(&mut self, seat: &Seat) -> &mut Table {
        let at =
            self.tables.iter().position(|(owner, _)| *owner == seat.slot).unwrap_or_else(|| {
                self.tables.push((seat.slot, Table::new(seat.keep, Arc::clone(&seat.networks))));
                self.tables.len() - 1
            });
        &mut self.tables[at].1
    }

    fn is_known(&self) -> bool {
        self.held.is_braked() || self.tables.iter().any(|(_, table)| table.is_known())
    }

    /// Looks up addresses again and says whether anything about them changed. What vanished from
    /// `source` may be held.
    fn refresh(
        &mut self,
        mut addresses: Vec<Address>,
        seats: &[Seat],
        source: Option<&Seat>,
    ) -> bool {
        // In order, so that a first list appends instead of inserting.
        addresses.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        addresses.dedup();
        let (mut changed, mut gone) = (false, Vec::new());
        for address in addresses {
            let place = self.place(&address);
            let found = seats.iter().find_map(|seat| {
                let (key, record) = self.get(seat.slot)?.find(&address)?;
                Some((seat, Arc::clone(key), record))
            });
            let Some((seat, key, record)) = found else {
                let goes = place.is_ok() && !self.held.holds(&address);
                gone.extend(goes.then_some(address));
                continue;
            };
            changed |= self.held.trust(&address);
            let source = seat.status.name();
            let old = place.ok().map(|at| &self.endpoints[at]);
            if old
                .is_some_and(|old| old.record == record && old.key == key && old.source == *source)
            {
                continue;
            }
            let endpoint = Arc::new(Endpoint {
                record,
                source: Arc::clone(source),
                key,
                load: old.map_or_else(|| self.load(seat), |old| Arc::clone(&old.load)),
                networks: Arc::clone(&seat.networks),
            });
            match place {
                Ok(at) => self.endpoints[at] = endpoint,
                Err(at) => self.endpoints.insert(at, endpoint),
            }
            changed = true;
        }
        changed |= !gone.is_empty();
        if !source.is_some_and(|source| self.hold(&gone, source)) {
            self.remove(gone);
        }
        changed
    }

    /// Whether endpoints that vanished from `source` stay as suspects.
    fn hold(&mut self, gone: &[Address], source: &Seat) -> bool {
        if gone.is_empty() {
            return false;
        }
        let gone = gone.iter().filter_map(|address| self.place(address).ok());
        let gone = gone.map(|at| Arc::clone(&self.endpoints[at])).collect();
        let (known, now) = (self.endpoints.len(), Instant::now());
        let back = self.held.vanish(gone, known, source.slot, source.brake, now);
        let is_held = back.is_some();
        for endpoint in back.into_iter().flatten() {
            if let Err(at) = self.place(&endpoint.record.address) {
                self.endpoints.insert(at, endpoint);
            }
        }
        is_held
    }

    /// Counters of an address that was not there. What the first list of a source holds may have been
    /// there for long; what comes later has joined now.
    fn load(&self, seat: &Seat) -> Arc<Load> {
        let is_first = !seat.complete && !self.listed.contains(&seat.slot);
        let load =
            if is_first { Load::default() } else { Load::joined_at(Instant::now().into_std()) };
        Arc::new(load)
    }

    fn remove(&mut self, mut gone: Vec<Address>) {
        gone.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        // One by one moves the rest each time, all at once looks at each.
        if gone.len() < 16 {
            for address in gone {
                if let Ok(at) = self.place(&address) {
                    self.endpoints.remove(at).load.leave();
                }
            }
            return;
        }
        let mut gone = gone.into_iter().peekable();
        self.endpoints.retain(|endpoint| {
            let leaves = gone.next_if(|address| *address == endpoint.record.address).is_some();
            if leaves {
                endpoint.load.leave();
            }
            !leaves
        });
    }

    /// Where the endpoint of an address is, or would be.
    fn place(&self, address: &Address) -> Result<usize, usize> {
        let text = address.as_str();
        self.endpoints.binary_search_by(|endpoint| endpoint.record.address.as_str().cmp(text))
    }
}

#[cfg(test)]
mod tests;
