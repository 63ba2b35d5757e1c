//! The key ranges that a source reads: one a service, or one for everything. They outlive connections.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use etcd_client::{Event, EventType};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::discovery::table::{Change, Item};
use crate::formats::{Layout, key_text};
use crate::model::ServiceName;
use crate::registry::etcd::{Kv, Position};

use super::named::Named;

/// What one event says, to each service that its key belongs to; nearly always one.
pub(super) type Changes = SmallVec<[(ServiceName, Change); 1]>;

/// Names a range; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RangeId(u64);

/// All ranges of one source.
#[derive(Debug)]
pub(super) struct Ranges {
    layout: Layout,
    by_id: BTreeMap<RangeId, Range>,
    by_service: HashMap<ServiceName, RangeId>,
    next: u64,
    /// Whether there is one range for everything.
    pub(super) whole: bool,
    /// The furthest that the cluster has been seen to be.
    pub(super) seen: Option<Position>,
}

/// The keys of one service, or of all.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) scope: Scope,
    pub(super) named: Named,
    /// All changes up to this revision are on the board; 0 before the first list. A watch resumes
    /// after it.
    pub(super) applied: i64,
    /// As `applied`, but by the word of the whole stream, which etcd 3.4 may give a moment too early:
    /// good enough to tell how old the set is, not to resume from.
    pub(super) known: i64,
    /// Whether what is on the board is of another history than the cluster's.
    pub(super) fresh: bool,
    /// Whether anything of it is on the board, from whatever time.
    pub(super) held: bool,
    /// When to list again, to mend what a watch may have missed.
    pub(super) relist: Option<Instant>,
    pub(super) work: Work,
}

/// Where a range is within the present session.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) watch: WatchState,
    /// Whether a list is queued or under way.
    pub(super) listing: bool,
    /// Whether a list is to come after a wait.
    pub(super) later: bool,
    /// Whether the watch has been silent for long, and a list is to say whether there was anything to
    /// tell.
    pub(super) doubted: bool,
    /// What came in while a list was under way.
    pub(super) replay: Vec<(ServiceName, Change)>,
    /// How often in a row its watch or list was refused.
    pub(super) refusals: u32,
}

/// The watch of a range on the present stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WatchState {
    #[default]
    None,
    /// etcd has yet to answer.
    Asked,
    On {
        id: i64,
        since: Instant,
    },
}

/// What a range holds, and how its keys are read. Cheap enough to clone for each list.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) layout: Layout,
    pub(super) prefix: Arc<str>,
    /// None for everything under the root.
    pub(super) service: Option<ServiceName>,
}

impl Ranges {
    pub(super) fn new(layout: Layout) -> Self {
        let (by_id, by_service) = (BTreeMap::new(), HashMap::new());
        Self { layout, by_id, by_service, next: 0, whole: false, seen: None }
    }

    /// Reads everything under the root.
    pub(super) fn add_whole(&mut self) {
        self.whole = true;
        let prefix = self.layout.root().into();
        self.insert(Scope { layout: self.layout.clone(), prefix, service: None });
    }

    /// Reads a service; none when the format cannot spell it, so that nobody can have written it.
    pub(super) fn add(&mut self, service: &ServiceName) -> Option<RangeId> {
        if let Some(id) = self.by_service.get(service) {
            return Some(*id);
        }
        let scope = self.scope_of(service)?;
        let id = self.insert(scope);
        self.by_service.insert(service.clone(), id);
        Some(id)
    }

    /// The range of a service, if there is one.
    pub(super) fn find(&self, service: &ServiceName) -> Option<RangeId> {
        self.by_service.get(service).copied()
    }

    /// What a service's keys are; none when the format cannot spell it.
    pub(super) fn scope_of(&self, service: &ServiceName) -> Option<Scope> {
        let prefix = self.layout.prefix(service)?.into();
        Some(Scope { layout: self.layout.clone(), prefix, service: Some(service.clone()) })
    }

    pub(super) fn remove(&mut self, service: &ServiceName) -> Option<Range> {
        self.by_id.remove(&self.by_service.remove(service)?)
    }

    pub(super) fn get(&self, id: RangeId) -> Option<&Range> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RangeId) -> Option<&mut Range> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<RangeId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (RangeId, &mut Range)> {
        self.by_id.iter_mut().map(|(id, range)| (*id, range))
    }

    /// Whether everything up to `revision` is on the board. What may not be read, and never could, is
    /// no part of it.
    pub(super) fn all_known(&self, revision: i64) -> bool {
        let is_refused = |range: &Range| range.work.refusals > 0 && !range.held;
        self.by_id.values().all(|range| range.known >= revision || is_refused(range))
    }

    /// Whether every watch there is, or should be by now, has told of everything up to `revision`.
    pub(super) fn all_watches_know(&self, revision: i64) -> bool {
        let is_watched = |range: &&Range| range.work.watch != WatchState::None;
        self.by_id.values().filter(is_watched).all(|range| range.known >= revision)
    }

    /// A key that this user may read, as far as that is known.
    pub(super) fn readable_key(&self) -> Vec<u8> {
        let readable = self.by_id.values().find(|range| range.work.refusals == 0);
        readable.map_or_else(
            || self.layout.root().into(),
            |range| range.scope.prefix.as_bytes().to_vec(),
        )
    }

    /// Moves [`Self::seen`] on.
    pub(super) fn see(&mut self, position: Position) {
        self.seen = Some(self.seen.map_or(position, |seen| seen.max(position)));
    }

    /// The cluster is not the one it was: nothing known of it holds, though the sets stay in use until
    /// they are read again.
    pub(super) fn forget_history(&mut self, now: Position) {
        self.seen = Some(now);
        for range in self.by_id.values_mut() {
            (range.applied, range.known, range.fresh) = (0, 0, true);
        }
    }

    fn insert(&mut self, scope: Scope) -> RangeId {
        let id = RangeId(self.next);
        self.next += 1;
        let (named, work) = (Named::default(), Work::default());
        let (fresh, held, relist) = (false, false, None);
        let range = Range { scope, named, applied: 0, known: 0, fresh, held, relist, work };
        self.by_id.insert(id, range);
        id
    }
}

impl Range {
    /// What an event says, to each service of this range that its key belongs to.
    pub(super) fn changes(&mut self, event: &Event) -> Changes {
        let changes = self.scope.changes(event);
        if !self.scope.layout.is_whole() {
            return changes;
        }
        let named = &mut self.named;
        changes.into_iter().flat_map(|(service, change)| named.follow(service, change)).collect()
    }
}

impl Scope {
    /// What a listed key says, to each service of this scope that it belongs to.
    pub(super) fn items(&self, kv: &Kv) -> SmallVec<[(ServiceName, Item); 1]> {
        let readings = match &self.service {
            None => self.layout.read(&kv.key, &kv.value),
            Some(service) => {
                let reading = self.layout.read_for(service, &kv.key, &kv.value);
                reading.map(|reading| (service.clone(), reading)).into_iter().collect()
            }
        };
        let key: Arc<str> = key_text(&kv.key).into();
        let item = |(service, value)| {
            let (key, created, modified) = (Arc::clone(&key), kv.created, kv.modified);
            (service, Item { key, created, modified, value })
        };
        readings.into_iter().map(item).collect()
    }

    fn changes(&self, event: &Event) -> Changes {
        let Some(kv) = event.kv() else { return Changes::new() };
        if event.event_type() == EventType::Put {
            let items = self.items(&kv.into()).into_iter();
            return items.map(|(service, item)| (service, Change::Put(item))).collect();
        }
        let (key, revision): (Arc<str>, _) = (key_text(kv.key()).into(), kv.mod_revision());
        let mine = |service: &ServiceName| self.service.as_ref().is_none_or(|of| of == service);
        let services = self.layout.services_of(kv.key()).into_iter().filter(mine);
        let delete = |service| (service, Change::Delete { key: Arc::clone(&key), revision });
        services.map(delete).collect()
    }
}
