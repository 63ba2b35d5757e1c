//! Whose keys are whose, where only values say it.
//!
//! Formats such as go-micro's spell `a/b` and `a-b` alike in keys; the value has the name. A delete has
//! no value, so that what was last seen under a key has to be remembered.

use std::{collections::HashMap, sync::Arc};

use smallvec::smallvec;

use crate::discovery::table::{Change, Item};
use crate::model::ServiceName;

use super::ranges::Changes;

/// The service of each key. Empty for layouts whose keys say it themselves.
#[derive(Debug, Default)]
pub(super) struct Named(HashMap<Arc<str>, ServiceName>);

impl Named {
    /// Takes a whole list in the place of all that was known, and the changes that came after it. A
    /// value that cannot be read names nobody: it is the next one of whom it was.
    pub(super) fn list<'a>(
        &mut self,
        items: &mut [(ServiceName, Item)],
        later: impl Iterator<Item = &'a (ServiceName, Change)>,
    ) {
        for (service, item) in items.iter_mut().filter(|(_, item)| item.value.is_err()) {
            if let Some(before) = self.0.get(&item.key) {
                service.clone_from(before);
            }
        }
        self.0 = items.iter().map(|(of, item)| (Arc::clone(&item.key), of.clone())).collect();
        for (service, change) in later {
            match change {
                Change::Put(item) => drop(self.0.insert(Arc::clone(&item.key), service.clone())),
                Change::Delete { key, .. } => drop(self.0.remove(key)),
            }
        }
    }

    /// Sends a change to the service that its key belongs to, and the news that a key has gone to the
    /// one that it belonged to before.
    pub(super) fn follow(&mut self, service: ServiceName, change: Change) -> Changes {
        let item = match &change {
            Change::Put(item) => item,
            Change::Delete { key, .. } => {
                let service = self.0.remove(key).unwrap_or(service);
                return smallvec![(service, change)];
            }
        };
        let (key, revision) = (Arc::clone(&item.key), item.modified);
        match self.0.get(&key) {
            Some(before) if *before == service => smallvec![(service, change)],
            // As in a list.
            Some(before) if item.value.is_err() => smallvec![(before.clone(), change)],
            _ => {
                let before = self.0.insert(Arc::clone(&key), service.clone());
                let gone = before.map(|before| (before, Change::Delete { key, revision }));
                gone.into_iter().chain([(service, change)]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{Reading, RejectReason};

    fn put(value: Result<Reading, RejectReason>) -> Change {
        Change::Put(Item { key: "k".into(), created: 1, modified: 2, value })
    }

    fn follow(named: &mut Named, service: &str, change: Change) -> Vec<String> {
        let said = |(service, change): (ServiceName, Change)| match change {
            Change::Put(_) => format!("{service} put"),
            Change::Delete { .. } => format!("{service} gone"),
        };
        named.follow(service.parse().unwrap(), change).into_iter().map(said).collect()
    }

    #[test]
    fn a_key_stays_with_whom_its_last_good_value_named() {
        let mut named = Named::default();
        let good = || put(Ok(Reading::default()));
        let delete = || Change::Delete { key: "k".into(), revision: 3 };
        assert_eq!(follow(&mut named, "a~b", good()), ["a~b put"]);
        assert_eq!(follow(&mut named, "a-b", put(Err(RejectReason::Empty))), ["a~b put"]);
        assert_eq!(follow(&mut named, "a-b", good()), ["a~b gone", "a-b put"]);
        assert_eq!(follow(&mut named, "a~b", delete()), ["a-b gone"]);
        assert_eq!(follow(&mut named, "a~b", delete()), ["a~b gone"]);
    }

    #[test]
    fn a_list_takes_the_place_of_what_was_known() {
        let mut named = Named::default();
        let item = |key: &str| Item {
            key: key.into(),
            created: 1,
            modified: 1,
            value: Ok(Reading::default()),
        };
        let (ab, cd): (ServiceName, ServiceName) = ("a~b".parse().unwrap(), "c~d".parse().unwrap());
        let mut items = [(ab.clone(), item("k")), (ab.clone(), item("l"))];
        named.list(&mut items, [(cd.clone(), put(Ok(Reading::default())))].iter());
        let bad = Item { value: Err(RejectReason::Empty), ..item("l") };
        let mut items = [(cd.clone(), item("k")), (cd, bad)];
        named.list(&mut items, [].iter());
        assert_eq!(items[1].0, ab);
        let delete = |key: &str| Change::Delete { key: key.into(), revision: 3 };
        assert_eq!(follow(&mut named, "x", delete("k")), ["c~d gone"]);
        assert_eq!(follow(&mut named, "x", delete("l")), ["a~b gone"]);
    }
}
