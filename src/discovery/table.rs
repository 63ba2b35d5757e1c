//! What one source holds of one service: its keys, and the records in their values.
//!
//! [`super::board`] owns the tables and feeds them with lists and changes, in the order of the
//! registry. State is kept by key: a delete needs no value, and a value that cannot be used leaves the
//! last good one of its key in force.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::formats::{Reading, RejectReason};
use crate::model::{Address, Record, Rejected};
use crate::networks::Networks;

use super::{state::Kept, timing::MAX_KEYS};

/// One key as it was read.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Registry key as reports show it.
    pub(super) key: Arc<str>,
    /// Revision at which the key came into being.
    pub(super) created: i64,
    /// Revision of its last change; of two keys with one address the later one counts.
    pub(super) modified: i64,
    /// What its value says.
    pub(super) value: Result<Reading, RejectReason>,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Item),
    Delete { key: Arc<str>, revision: i64 },
}

impl Change {
    pub(super) const fn revision(&self) -> i64 {
        match self {
            Self::Put(item) => item.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// All keys of a service as of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// The keys.
    pub(super) items: Vec<Item>,
    /// Changes that came in while the list was read; those it already shows are left out.
    pub(super) replay: Vec<Change>,
    /// Revision of the list; 0 where the source has none.
    pub(super) revision: i64,
    /// Whether what was known before belongs to another history, so that no old value may stand in for
    /// a bad new one.
    pub(super) fresh: bool,
    /// Whether keys were left out because there are too many.
    pub(super) cut: bool,
}

/// What an update may have changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Addresses to look up again; some twice.
    pub(super) addresses: Vec<Address>,
    /// Whether the rejected records changed.
    pub(super) rejected: bool,
    /// Records that went, for a source that keeps the last non-empty set.
    lost: Vec<(Arc<str>, Entry)>,
}

#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<Arc<str>, Entry>,
    /// Which keys hold an address; usually one.
    holders: HashMap<Address, SmallVec<[Arc<str>; 1]>>,
    rejected: BTreeMap<Arc<str>, String>,
    /// Weights that are under another key than their instance, by its id.
    weights: HashMap<String, u32>,
    /// Entries with records that are really there.
    live: usize,
    /// Whether the last non-empty set outlives an empty one.
    keep: bool,
    /// Where endpoints may be.
    networks: Arc<Networks>,
    cut: bool,
    /// Revision of the last list.
    listed: i64,
    /// Newest revision seen here.
    pub(super) revision: i64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    modified: i64,
    /// Shared with the endpoints made of them: a registry may hold a hundred thousand.
    records: Vec<Arc<Record>>,
    /// What this key says of the weight of an instance that is under another key.
    weight_of: Option<(String, u32)>,
    /// Gone from the registry, kept because the set would be empty without it.
    kept: bool,
}

impl Table {
    pub(super) fn new(keep: bool, networks: Arc<Networks>) -> Self {
        Self {
            entries: HashMap::new(),
            holders: HashMap::new(),
            rejected: BTreeMap::new(),
            weights: HashMap::new(),
            live: 0,
            keep,
            networks,
            cut: false,
            listed: 0,
            revision: 0,
        }
    }

    /// Applies changes in their order. A list may have been ahead of them.
    pub(super) fn apply(&mut self, mut changes: Vec<Change>) -> Touched {
        let mut touched = Touched::default();
        changes.retain(|change| change.revision() > self.listed);
        self.changes(changes, &mut touched);
        self.settle(&mut touched);
        touched
    }

    /// Makes the table equal to a list: a diff, so that what did not change is not touched by it.
    pub(super) fn replace(&mut self, listing: Listing) -> Touched {
        let mut touched = Touched::default();
        let listed: HashSet<_> = listing.items.iter().map(|item| Arc::clone(&item.key)).collect();
        let gone = self.entries.iter().filter(|(key, entry)| !entry.kept && !listed.contains(*key));
        for key in gone.map(|(key, _)| Arc::clone(key)).collect::<Vec<_>>() {
            self.delete(&key, &mut touched);
        }
        touched.rejected |= std::mem::replace(&mut self.cut, listing.cut) != listing.cut;
        for item in listing.items {
            self.put(item, listing.fresh, &mut touched);
        }
        (self.listed, self.revision) = (listing.revision, listing.revision);
        let newer =
            listing.replay.into_iter().filter(|change| change.revision() > listing.revision);
        self.changes(newer, &mut touched);
        self.settle(&mut touched);
        touched
    }

    /// All addresses, for when the table itself goes.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.holders.keys()
    }

    /// The record that counts for `address`, with its key: the one written last.
    pub(super) fn find(&self, address: &Address) -> Option<(&Arc<str>, Arc<Record>)> {
        let holders = self.holders.get(address)?;
        let entries = holders.iter().filter_map(|key| Some((key, self.entries.get(key)?)));
        let (key, entry) = entries.max_by_key(|(key, entry)| (entry.modified, Reverse(*key)))?;
        let record = entry.records.iter().find(|record| record.address == *address)?;
        Some((key, self.weighed(record)))
    }

    /// Every address with the record that counts for it.
    pub(super) fn kept(&self) -> impl Iterator<Item = Kept> {
        self.holders.keys().filter_map(|address| {
            let (key, record) = self.find(address)?;
            let modified = self.entries.get(key)?.modified;
            Some(Kept { key: Arc::clone(key), modified, record })
        })
    }

    /// Records that cannot be used, in the order of their keys.
    pub(super) fn rejected(&self) -> impl Iterator<Item = Rejected> {
        let cut = self.cut.then(|| Rejected {
            key: "".into(),
            reason: format!("more than {MAX_KEYS} keys or endpoints; the others are left out"),
        });
        let each = self.rejected.iter();
        each.map(|(key, reason)| Rejected { key: Arc::clone(key), reason: reason.clone() })
            .chain(cut)
    }

    /// How many [`Self::rejected`] there are.
    pub(super) fn rejected_count(&self) -> usize {
        self.rejected.len() + usize::from(self.cut)
    }

    /// Whether the source knows anything of the service.
    pub(super) fn is_known(&self) -> bool {
        !self.holders.is_empty() || self.rejected_count() > 0
    }

    fn changes(&mut self, changes: impl IntoIterator<Item = Change>, touched: &mut Touched) {
        for change in changes {
            self.revision = self.revision.max(change.revision());
            match change {
                Change::Put(item) => self.put(item, false, touched),
                Change::Delete { key, .. } => self.delete(&key, touched),
            }
        }
    }

    fn put(&mut self, item: Item, fresh: bool, touched: &mut Touched) {
        let old = self.entries.get(&item.key);
        if old.is_none() && self.entries.len() >= MAX_KEYS {
            touched.rejected |= !self.cut;
            self.cut = true;
            return;
        }
        let (entry, left_out) = match item.value {
            Ok(Reading { records, left_out, weight_of }) => {
                let mut left_out = left_out.map(|reason| reason.to_string());
                let mut may_stay = |record: &Record| {
                    let Some(address) = record.address.socket() else { return true };
                    // Nothing of what the key said before stands in for it: it was understood.
                    let refused = self.networks.check(address).map_err(|refused| {
                        left_out.get_or_insert_with(|| refused.to_string());
                    });
                    refused.is_ok()
                };
                let records = records.into_iter().filter(&mut may_stay).map(Arc::new).collect();
                (Entry { records, weight_of, ..Entry::default() }, left_out)
            }
            Err(reason) => {
                let same_key = |old: &&Entry| !old.kept && !fresh && item.created <= old.modified;
                let entry = old.filter(same_key).cloned().unwrap_or_default();
                let is_used = !entry.records.is_empty() || entry.weight_of.is_some();
                let last = if is_used { "; its last good value is used" } else { "" };
                (entry, Some(format!("{reason}{last}")))
            }
        };
        let before = match left_out {
            Some(reason) => self.rejected.insert(Arc::clone(&item.key), reason),
            None => self.rejected.remove(&item.key),
        };
        touched.rejected |= before.as_ref() != self.rejected.get(&item.key);
        self.set(item.key, Entry { modified: item.modified, ..entry }, touched);
    }

    fn delete(&mut self, key: &Arc<str>, touched: &mut Touched) {
        touched.rejected |= self.rejected.remove(key).is_some();
        if self.entries.get(key).is_some_and(|entry| !entry.kept) {
            self.unset(key, touched);
        }
    }

    /// Stores the entry of a key in place of the one it has.
    fn set(&mut self, key: Arc<str>, mut entry: Entry, touched: &mut Touched) {
        self.unset(&key, touched);
        entry.records.retain(|record| {
            let address = &record.address;
            let fits = self.holders.len() < MAX_KEYS || self.holders.contains_key(address);
            if fits {
                touched.addresses.push(address.clone());
                self.holders.entry(address.clone()).or_default().push(Arc::clone(&key));
            } else {
                touched.rejected |= !self.cut;
                self.cut = true;
            }
            fits
        });
        self.live += usize::from(entry.is_live());
        if let Some((id, weight)) = &entry.weight_of {
            self.weights.insert(id.clone(), *weight);
            self.touch(id, touched);
        }
        self.entries.insert(key, entry);
    }

    fn unset(&mut self, key: &Arc<str>, touched: &mut Touched) {
        let Some((key, mut entry)) = self.entries.remove_entry(key) else { return };
        if let Some((id, _)) = &entry.weight_of {
            self.weights.remove(id);
            self.touch(id, touched);
        }
        for record in &entry.records {
            let address = &record.address;
            touched.addresses.push(address.clone());
            if let Some(keys) = self.holders.get_mut(address) {
                keys.retain(|holder| *holder != key);
                if keys.is_empty() {
                    self.holders.remove(address);
                }
            }
        }
        self.live -= usize::from(entry.is_live());
        if self.keep && !entry.records.is_empty() {
            entry.records = entry.records.iter().map(|record| self.weighed(record)).collect();
            touched.lost.push((key, entry));
        }
    }

    /// The record with the weight that another key gives it.
    fn weighed(&self, record: &Arc<Record>) -> Arc<Record> {
        match self.weights.get(&record.id) {
            Some(weight) => Arc::new(Record { weight: *weight, ..Record::clone(record) }),
            None => Arc::clone(record),
        }
    }

    /// The weight of an instance has changed.
    fn touch(&self, id: &str, touched: &mut Touched) {
        let records = self.entries.values().flat_map(|entry| &entry.records);
        touched.addresses.extend(records.filter(|r| r.id == id).map(|r| r.address.clone()));
    }

    /// Ends an update of a table that keeps its last non-empty set: puts back what the update took
    /// away if nothing else is left, and drops what was put back before as soon as something is.
    fn settle(&mut self, touched: &mut Touched) {
        if !self.keep {
            return;
        }
        if self.live == 0 {
            // The first loss of a key holds what it was before this update.
            for (key, entry) in std::mem::take(&mut touched.lost).into_iter().rev() {
                let modified = self.entries.get(&key).map_or(entry.modified, |now| now.modified);
                self.set(key, Entry { modified, kept: true, ..entry }, touched);
            }
        } else {
            let kept = self.entries.iter().filter(|(_, entry)| entry.kept);
            for key in kept.map(|(key, _)| Arc::clone(key)).collect::<Vec<_>>() {
                self.unset(&key, touched);
            }
        }
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        !self.kept && !self.records.is_empty()
    }
}
