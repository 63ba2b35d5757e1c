//! One service as all sources know it, merged by address: the first source that has an address wins.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{brake::Held, table::Table},
    Seat, Slot,
};
use crate::model::{Address, Endpoint, Load};

/// One service.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) tables: Vec<(Slot, Table)>,
    /// In the order of the address.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) held: Held,
    /// Lazy sources that have listed it.
    pub(super) listed: Vec<Slot>,
    pub(super) published: Option<Instant>,
    /// Not to be published before: the rest of a revision may follow.
    pub(super) hold: Option<Instant>,
    /// Since when no source knows it.
    pub(super) vacant: Option<Instant>,
}

impl Merged {
    pub(super) fn get(&self, slot: Slot) -> Option<&Table> {
        self.tables.iter().find(|(owner, _)| *owner == slot).map(|(_, table)| table)
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.get(slot).is_some()
    }

    pub(super) fn table(&mut self, seat: &Seat) -> &mut Table {
        let at =
            self.tables.iter().position(|(owner, _)| *owner == seat.slot).unwrap_or_else(|| {
                self.tables.push((seat.slot, Table::new(seat.keep, Arc::clone(&seat.networks))));
                self.tables.len() - 1
            });
        &mut self.tables[at].1
    }

    pub(super) fn is_known(&self) -> bool {
        self.held.is_braked() || self.tables.iter().any(|(_, table)| table.is_known())
    }

    /// Looks up addresses again and says whether anything about them changed. What vanished from
    /// `source` may be held.
    pub(super) fn refresh(
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

    pub(super) fn remove(&mut self, mut gone: Vec<Address>) {
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
