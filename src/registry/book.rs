//! A registry as its keys have it: each key with what its value says, and the lease it lives under.
//!
//! Where discovery merges keys into endpoints, the commands and the mirror need to see the keys. They
//! keep a [`Book`] equal to lists and changes, and are told what differs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::formats::{Layout, Reading, RejectReason, key_text};
use crate::model::{Record, ServiceName};

use super::etcd::{Change, Kv};

/// The keys of one service under a layout, or of all.
#[derive(Clone, Debug)]
pub struct Scope {
    layout: Layout,
    service: Option<ServiceName>,
    prefix: String,
}

/// One key, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as reports show it.
    pub key: Arc<str>,
    /// The key and value as etcd has them, with revisions and lease.
    pub kv: Kv,
    /// The service that the key belongs to; in a whole registry the nearest one.
    pub service: ServiceName,
    /// What the value says.
    pub value: Result<Reading, RejectReason>,
}

/// One key that differs from what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// None for a key that was not there.
    pub before: Option<Arc<Entry>>,
    /// None for a key that is gone.
    pub after: Option<Arc<Entry>>,
}

/// All keys of a scope.
#[derive(Clone, Debug)]
pub struct Book {
    scope: Scope,
    entries: BTreeMap<Vec<u8>, Arc<Entry>>,
    strays: Vec<Arc<str>>,
}

impl Scope {
    /// Everything under the root of `layout`.
    pub fn whole(layout: Layout) -> Self {
        Self { prefix: layout.root().to_owned(), layout, service: None }
    }

    /// One service; none when the layout cannot spell its name.
    pub fn of(layout: Layout, service: ServiceName) -> Option<Self> {
        Some(Self { prefix: layout.prefix(&service)?, layout, service: Some(service) })
    }

    /// What all its keys start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How its keys are read.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads a key; none for one that belongs to no service of this scope.
    pub fn entry(&self, kv: Kv) -> Option<Entry> {
        let (service, value) = match &self.service {
            Some(service) => (service.clone(), self.layout.read_for(service, &kv.key, &kv.value)?),
            None => self.layout.read(&kv.key, &kv.value).into_iter().next()?,
        };
        Some(Entry { key: key_text(&kv.key).into(), kv, service, value })
    }
}

/// The entries of one service, with weights that some formats keep under another key than the instance.
pub fn weighed(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let weights = entries.iter().filter_map(|entry| entry.value.as_ref().ok()?.weight_of.clone());
    let weights: HashMap<String, u32> = weights.collect();
    if weights.is_empty() {
        return entries;
    }
    let weigh = |mut entry: Arc<Entry>| {
        if entry.records().iter().any(|record| weights.contains_key(&record.id))
            && let Ok(reading) = &mut Arc::make_mut(&mut entry).value
        {
            for record in &mut reading.records {
                record.weight = weights.get(&record.id).copied().unwrap_or(record.weight);
            }
        }
        entry
    };
    entries.into_iter().map(weigh).collect()
}

impl Entry {
    /// What it says of endpoints; nothing where the value cannot be used.
    pub fn records(&self) -> &[Record] {
        self.value.as_ref().map(|reading| &*reading.records).unwrap_or_default()
    }

    /// Why it says no more of endpoints than that.
    pub const fn rejected(&self) -> Option<&RejectReason> {
        match &self.value {
            Ok(reading) => reading.left_out.as_ref(),
            Err(reason) => Some(reason),
        }
    }
}

impl Book {
    /// Without any key.
    pub const fn new(scope: Scope) -> Self {
        Self { scope, entries: BTreeMap::new(), strays: Vec::new() }
    }

    /// What it is about.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The keys in their order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Keys of the last list that belong to no service that a caller could name.
    pub fn strays(&self) -> &[Arc<str>] {
        &self.strays
    }

    /// Makes it equal to a list, and says what that changed.
    pub fn list(&mut self, keys: Vec<Kv>) -> Vec<Diff> {
        self.strays.clear();
        let mut diffs = Vec::new();
        let mut old = std::mem::take(&mut self.entries);
        for kv in keys {
            let before = old.remove(&kv.key);
            self.put(kv, before, &mut diffs);
        }
        diffs.extend(old.into_values().map(|before| Diff { before: Some(before), after: None }));
        diffs
    }

    /// Applies changes in their order, and says what they changed. A put of what is there already is
    /// none: some frameworks refresh their records in that way.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Diff> {
        let mut diffs = Vec::new();
        for change in changes {
            match change {
                Change::Put(kv) => {
                    let before = self.entries.remove(&kv.key);
                    self.put(kv, before, &mut diffs);
                }
                Change::Deleted { key, .. } => {
                    let before = self.entries.remove(&key);
                    diffs.extend(before.map(|before| Diff { before: Some(before), after: None }));
                }
            }
        }
        diffs
    }

    fn put(&mut self, kv: Kv, before: Option<Arc<Entry>>, diffs: &mut Vec<Diff>) {
        let key = kv.key.clone();
        let Some(entry) = self.scope.entry(kv) else {
            self.strays.push(key_text(&key).into());
            return;
        };
        let entry = Arc::new(entry);
        let says_the_same = |before: &Arc<Entry>| {
            (&before.value, before.kv.lease) == (&entry.value, entry.kv.lease)
        };
        if !before.as_ref().is_some_and(says_the_same) {
            diffs.push(Diff { before, after: Some(Arc::clone(&entry)) });
        }
        self.entries.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, lease: i64) -> Kv {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        Kv { key, value, created: 1, modified: 1, lease }
    }

    fn book() -> Book {
        Book::new(Scope::whole(Layout::new("auto", "").unwrap()))
    }

    /// Keys before and after, `-` for none.
    fn keys(diffs: &[Diff]) -> Vec<(String, String)> {
        let key = |entry: &Option<Arc<Entry>>| {
            entry.as_ref().map_or_else(|| "-".to_owned(), |entry| entry.key.to_string())
        };
        diffs.iter().map(|diff| (key(&diff.before), key(&diff.after))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn a_list_after_a_gap_tells_what_differs_and_nothing_else() {
        let mut book = book();
        let first = book.list(vec![kv("a/1", "10.0.0.1:1", 7), kv("a/2", "10.0.0.2:1", 7)]);
        assert_eq!(first.len(), 2);
        let again = book.list(vec![kv("a/2", "10.0.0.2:1", 7), kv("a/3", "nonsense", 0)]);
        assert_eq!(keys(&again), pairs(&[("-", "a/3"), ("a/1", "-")]));
        assert!(again[0].after.as_ref().unwrap().value.is_err());
    }

    #[test]
    fn a_put_of_the_same_is_no_change_but_one_under_another_lease_is() {
        let mut book = book();
        book.list(vec![kv("a/1", "10.0.0.1:1", 7)]);
        let put = |lease| vec![Change::Put(kv("a/1", "10.0.0.1:1", lease))];
        assert_eq!(book.apply(put(7)), []);
        assert_eq!(keys(&book.apply(put(8))), pairs(&[("a/1", "a/1")]));
        let gone = Change::Deleted { key: b"a/1".to_vec(), revision: 9 };
        assert_eq!(keys(&book.apply(vec![gone.clone()])), pairs(&[("a/1", "-")]));
        assert_eq!(book.apply(vec![gone]), []);
    }

    #[test]
    fn a_weight_under_another_key_is_that_of_its_instance() {
        let mut book = Book::new(Scope::whole(Layout::new("traefik", "").unwrap()));
        let key = |leaf| format!("traefik/http/services/a/loadbalancer/servers/0/{leaf}");
        book.list(vec![kv(&key("url"), "h2c://10.0.0.1:80", 0), kv(&key("weight"), "7", 0)]);
        let entries = weighed(book.entries().cloned().collect());
        let records: Vec<_> = entries.iter().flat_map(|entry| entry.records()).collect();
        assert_eq!((records.len(), records[0].weight), (1, 7));
    }

    #[test]
    fn keys_of_no_service_are_strays_and_those_of_another_are_left_out() {
        let mut all = book();
        all.list(vec![kv("loose", "x", 0), kv("a/b/1", "10.0.0.1:1", 0)]);
        assert_eq!(all.strays(), ["loose".into()]);
        let layout = Layout::new("auto", "").unwrap();
        let mut one = Book::new(Scope::of(layout, "a".parse().unwrap()).unwrap());
        one.list(vec![kv("a/1", "10.0.0.1:1", 0), kv("a/b/1", "10.0.0.2:1", 0)]);
        assert_eq!(one.entries().map(|entry| &*entry.key).collect::<Vec<_>>(), ["a/1"]);
    }
}
