//! Both sides of a mirror, and where something is to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::formats::Layout;
use crate::model::ServiceName;
use crate::registry::{
    book::{Diff, Entry, weighed},
    etcd::LeaseId,
};

use super::{LeftOut, Plan, Why, plan};

/// Which services are copied, and under which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(ServiceName, ServiceName)>);

/// What is known of both sides. Told of changes, it plans for the services that they touch.
#[derive(Debug)]
pub struct Mirror {
    names: Names,
    to: Layout,
    own: Option<LeaseId>,
    here: Index,
    there: Index,
    dirty: BTreeSet<ServiceName>,
    left_out: BTreeMap<ServiceName, Vec<LeftOut>>,
    kept: BTreeMap<ServiceName, usize>,
}

/// Keys by service.
#[derive(Debug, Default)]
struct Index(BTreeMap<ServiceName, BTreeMap<Vec<u8>, Arc<Entry>>>);

impl Names {
    /// Only these, each with its name on the other side; all, under their own names, without any.
    pub const fn new(pairs: Vec<(ServiceName, ServiceName)>) -> Self {
        Self(pairs)
    }

    /// The service, if it is the only one that is copied.
    pub fn only(&self) -> Option<&ServiceName> {
        match &self.0[..] {
            [(here, _)] => Some(here),
            _ => None,
        }
    }

    fn there(&self, here: &ServiceName) -> Option<ServiceName> {
        match self.0.is_empty() {
            true => Some(here.clone()),
            false => self.0.iter().find(|(name, _)| name == here).map(|(_, there)| there.clone()),
        }
    }

    fn here(&self, there: &ServiceName) -> Option<ServiceName> {
        match self.0.is_empty() {
            true => Some(there.clone()),
            false => self.0.iter().find(|(_, name)| name == there).map(|(here, _)| here.clone()),
        }
    }
}

impl Mirror {
    /// Nothing is known of either side.
    pub fn new(names: Names, to: Layout) -> Self {
        Self {
            names,
            to,
            own: None,
            here: Index::default(),
            there: Index::default(),
            dirty: BTreeSet::new(),
            left_out: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The side that is copied has changed. A value that cannot be used leaves the last good one of
    /// its key in force, as in discovery.
    pub fn here(&mut self, diffs: Vec<Diff>) {
        let diffs = diffs.into_iter().map(|diff| match (&diff.before, &diff.after) {
            (Some(before), Some(after)) if after.value.is_err() => {
                let last = self
                    .here
                    .get(before)
                    .filter(|last| last.value.is_ok() && after.kv.created <= last.kv.modified);
                let stand_in =
                    last.map(|last| Arc::new(Entry { kv: after.kv.clone(), ..Entry::clone(last) }));
                Diff { after: stand_in.or(diff.after), before: diff.before }
            }
            _ => diff,
        });
        let diffs = diffs.collect();
        for service in self.here.apply(diffs) {
            self.dirty.extend(self.names.there(&service));
        }
    }

    /// The side that is written to has changed.
    pub fn there(&mut self, diffs: Vec<Diff>) {
        for service in self.there.apply(diffs) {
            if self.names.here(&service).is_some() {
                self.dirty.insert(service);
            }
        }
    }

    /// From now on this lease is ours.
    pub fn own(&mut self, lease: Option<LeaseId>) {
        if std::mem::replace(&mut self.own, lease) != lease {
            self.dirty.extend(self.here.0.keys().filter_map(|service| self.names.there(service)));
            let there = self.there.0.keys().filter(|service| self.names.here(service).is_some());
            self.dirty.extend(there.cloned());
        }
    }

    /// Says that what was planned for a service was not done.
    pub fn again(&mut self, service: ServiceName) {
        self.dirty.insert(service);
    }

    /// Whether there may be something to do.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Plans for one service that something changed about. Of the records left out only those that
    /// were not left out before, for the same reason, are in it.
    pub fn plan(&mut self) -> Option<Plan> {
        let service = self.dirty.pop_first()?;
        let here = self.names.here(&service).map(|here| self.here.of(&here)).unwrap_or_default();
        let mut plan = plan(&service, &here, &self.there.of(&service), &self.to, self.own);
        let before = match plan.left_out.is_empty() {
            true => self.left_out.remove(&service),
            false => self.left_out.insert(service.clone(), plan.left_out.clone()),
        };
        plan.left_out.retain(|left| before.as_ref().is_none_or(|before| !before.contains(left)));
        match plan.kept.len() {
            0 => self.kept.remove(&service),
            kept => self.kept.insert(service, kept),
        };
        Some(plan)
    }

    /// Copies that are there, and records that have none though they should.
    pub fn counts(&self) -> (usize, usize) {
        let left_out = self.left_out.values().flatten().filter(|left| left.why != Why::IsCopy);
        (self.kept.values().sum(), left_out.count())
    }
}

impl Index {
    /// Applies changes and says which services they touch.
    fn apply(&mut self, diffs: Vec<Diff>) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        for Diff { before, after } in diffs {
            if let Some(before) = before {
                if let Some(keys) = self.0.get_mut(&before.service) {
                    keys.remove(&before.kv.key);
                    if keys.is_empty() {
                        self.0.remove(&before.service);
                    }
                }
                touched.insert(before.service.clone());
            }
            if let Some(after) = after {
                touched.insert(after.service.clone());
                let keys = self.0.entry(after.service.clone()).or_default();
                keys.insert(after.kv.key.clone(), after);
            }
        }
        touched
    }

    fn get(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        self.0.get(&entry.service)?.get(&entry.kv.key)
    }

    fn of(&self, service: &ServiceName) -> Vec<Arc<Entry>> {
        self.0
            .get(service)
            .map(|keys| weighed(keys.values().cloned().collect()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Step;
    use crate::registry::{
        book::{Book, Scope},
        etcd::{Change, Kv},
    };

    fn put(key: &str, value: &str, modified: i64) -> Change {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        Change::Put(Kv { key, value, created: 1, modified, lease: 7 })
    }

    /// Both sides, with everything below /a copied to /b.
    struct Sides {
        here: Book,
        mirror: Mirror,
    }

    impl Sides {
        fn new(names: Names) -> Self {
            let scope = Scope::whole(Layout::new("auto", "/a").unwrap());
            let mut mirror = Mirror::new(names, Layout::new("etcd-naming", "/b").unwrap());
            mirror.own(LeaseId::of(1));
            Self { here: Book::new(scope), mirror }
        }

        /// Tells of a change, and says which keys the plans for it would put.
        fn put(&mut self, key: &str, value: &str, modified: i64) -> (Vec<String>, Vec<LeftOut>) {
            self.mirror.here(self.here.apply(vec![put(key, value, modified)]));
            let (mut keys, mut left_out) = (Vec::new(), Vec::new());
            while let Some(plan) = self.mirror.plan() {
                keys.extend(plan.steps.iter().filter_map(|step| match step {
                    Step::Put { copy, .. } => Some(format!("{} {}", copy.key, copy.address)),
                    Step::Delete { .. } => None,
                }));
                left_out.extend(plan.left_out);
            }
            (keys, left_out)
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_leaves_the_last_good_one_in_force() {
        let mut sides = Sides::new(Names::default());
        let one = ["/b/orders/10.0.0.1:80 10.0.0.1:80"];
        assert_eq!(sides.put("/a/orders/1", "10.0.0.1:80", 2).0, one);
        assert_eq!(sides.put("/a/orders/1", "nonsense", 3).0, one);
        assert_eq!(sides.put("/a/orders/1", "{", 4).0, one);
        assert_eq!(
            sides.put("/a/orders/1", "10.0.0.2:80", 5).0,
            ["/b/orders/10.0.0.2:80 10.0.0.2:80"]
        );
    }

    #[test]
    fn a_record_that_is_left_out_is_told_once_for_each_reason() {
        let mut sides = Sides::new(Names::default());
        assert_eq!(sides.put("/a/orders/1", "nonsense", 2).1.len(), 1);
        assert_eq!(sides.put("/a/orders/2", "10.0.0.2:80", 3).1, []);
        assert_eq!(sides.put("/a/orders/1", "{", 4).1.len(), 1);
        assert_eq!(sides.mirror.counts(), (0, 1));
    }

    #[test]
    fn only_the_services_that_are_named_are_copied_under_the_names_that_they_are_given() {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        let mut sides = Sides::new(Names::new(vec![(name("orders"), name("orders.rpc"))]));
        let copied = sides.put("/a/orders/1", "10.0.0.1:80", 2).0;
        assert_eq!(copied, ["/b/orders.rpc/10.0.0.1:80 10.0.0.1:80"]);
        assert_eq!(sides.put("/a/pay/1", "10.0.0.1:80", 3).0, [""; 0]);
    }
}
