//! Tables of hashed keys, built once for all workers.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use super::{hash::mix, maglev::Maglev, ring::Ring};
use crate::{
    config::Balance,
    model::{ServiceName, Tally},
};

/// What the workers share of balancing by key: tables, which are large, and the number of calls in
/// flight that bounds the load of one endpoint.
///
/// A table is known by what it is made of, so that a new snapshot with the same endpoints uses the
/// one that is there. The lock is taken when a worker prepares for a snapshot, not by picks.
#[derive(Clone, Debug, Default)]
pub struct Tables(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    tables: HashMap<Id, Weak<LazyTable>>,
    tallies: HashMap<(ServiceName, Arc<str>), Weak<Tally>>,
}

/// Kind, number and hash of the endpoints.
type Id = (bool, usize, u64);

/// Filled by the worker that comes first; the others wait for it.
pub(super) type LazyTable = LazyLock<Table, Box<dyn FnOnce() -> Table + Send>>;

/// A table of endpoints by key.
#[derive(Debug)]
pub(super) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// The tables, for one service and selector.
#[derive(Clone, Debug)]
pub(super) struct Shared<'a> {
    pub(super) tables: &'a Tables,
    service: &'a ServiceName,
    selector: &'a Arc<str>,
}

impl Tables {
    pub(super) const fn of<'a>(
        &'a self,
        service: &'a ServiceName,
        selector: &'a Arc<str>,
    ) -> Shared<'a> {
        Shared { tables: self, service, selector }
    }

    /// The table of these endpoints, given by hash and weight.
    pub(super) fn table(&self, balance: Balance, endpoints: Vec<(u64, u32)>) -> Arc<LazyTable> {
        let is_ring = balance == Balance::RingHash;
        let fold = |sum, (hash, weight): &(u64, u32)| mix(mix(sum, *hash), u64::from(*weight));
        let id = (is_ring, endpoints.len(), endpoints.iter().fold(0, fold));
        let mut known = self.known();
        if let Some(table) = known.tables.get(&id).and_then(Weak::upgrade) {
            return table;
        }
        known.tables.retain(|_, table| table.strong_count() > 0);
        let build: Box<dyn FnOnce() -> Table + Send> = Box::new(move || match is_ring {
            true => Table::Ring(Ring::new(&endpoints)),
            false => Table::Maglev(Maglev::new(&endpoints)),
        });
        let table = Arc::new(LazyTable::new(build));
        known.tables.insert(id, Arc::downgrade(&table));
        table
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared<'_> {
    /// Calls in flight of the service with the selector, on all workers.
    pub(super) fn tally(&self) -> Arc<Tally> {
        let mut known = self.tables.known();
        let key = (self.service.clone(), Arc::clone(self.selector));
        if let Some(tally) = known.tallies.get(&key).and_then(Weak::upgrade) {
            return tally;
        }
        known.tallies.retain(|_, tally| tally.strong_count() > 0);
        let tally = Arc::<Tally>::default();
        known.tallies.insert(key, Arc::downgrade(&tally));
        tally
    }
}

impl Table {
    /// Owners in the order in which a key asks for them, by their position in the list that the table
    /// was made of; owners come up again and again.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let (owners, place) = match self {
            Self::Ring(ring) => (ring.owners(), ring.place(key)),
            Self::Maglev(maglev) => (maglev.owners(), maglev.place(key)),
        };
        owners[place..].iter().chain(&owners[..place]).map(|owner| *owner as usize)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::stable_hash;

    /// Endpoints of these weights, each with a hash of its own.
    pub(in crate::balance) fn endpoints(weights: &[u32]) -> Vec<(u64, u32)> {
        let endpoint = |(at, weight): (usize, &u32)| {
            (stable_hash(format!("10.0.0.{at}:80").as_bytes()), *weight)
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    pub(in crate::balance) fn keys() -> impl Iterator<Item = u64> {
        (0..100_000_u64).map(|key| stable_hash(&key.to_le_bytes()))
    }

    /// Part of the keys that each owner gets.
    pub(in crate::balance) fn shares(most: usize, owner: impl Fn(u64) -> u32) -> Vec<f64> {
        let mut counts = vec![0_u32; most];
        keys().for_each(|key| counts[owner(key) as usize] += 1);
        counts.retain(|count| *count > 0);
        counts.into_iter().map(|count| f64::from(count) / 100_000.0).collect()
    }

    /// How many keys moved that were with `out`, and how many others.
    pub(in crate::balance) fn moved(
        before: impl Fn(u64) -> u64,
        after: impl Fn(u64) -> u64,
        out: u64,
    ) -> (usize, usize) {
        let moved = keys().filter(|&key| before(key) != after(key));
        let (of_it, others): (Vec<_>, Vec<_>) = moved.partition(|&key| before(key) == out);
        (of_it.len(), others.len())
    }

    #[test]
    fn workers_share_a_table_of_the_same_endpoints_as_long_as_one_uses_it() {
        let tables = Tables::default();
        let table = |weights: &[u32], balance| tables.table(balance, endpoints(weights));
        let ring = table(&[1, 2], Balance::RingHash);
        assert!(Arc::ptr_eq(&ring, &table(&[1, 2], Balance::RingHash)));
        assert!(!Arc::ptr_eq(&ring, &table(&[2, 1], Balance::RingHash)));
        assert!(!Arc::ptr_eq(&ring, &table(&[1, 2], Balance::Maglev)));
        drop(ring);
        let _other = table(&[1], Balance::RingHash);
        assert_eq!(tables.known().tables.len(), 1);
    }
}
