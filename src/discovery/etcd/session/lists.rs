//! Lists: the first one of a range, and those that mend what a watch cannot.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::backoff::jitter;
use crate::discovery::desk::Report;
use crate::discovery::table::{Item, Listing};
use crate::discovery::timing::{MAX_LISTED, MAX_LISTED_WHOLE, MAX_LISTS};
use crate::discovery::trouble::{Ended, Trouble};
use crate::model::ServiceName;
use crate::registry::etcd::{EtcdError, List, ListLimits, Position};

use super::super::ranges::{RangeId, Scope};
use super::{Done, Session};

/// Between two tries of a list whose revision was compacted away while it was read.
const PAUSE: Duration = Duration::from_millis(100);

/// What a list found.
pub(super) struct Found {
    list: List,
    items: Vec<(ServiceName, Item)>,
}

impl Session<'_> {
    /// Queues a list of a range, unless there is one.
    pub(super) fn list(&mut self, id: RangeId) {
        let Some(range) = self.ranges.get_mut(id) else { return };
        if !std::mem::replace(&mut range.work.listing, true) {
            self.to_list.push_back(id);
        }
    }

    /// Queues a list of a range whose set is in use and only has to be checked: after a while, so that
    /// a fleet does not list all at once when etcd comes back.
    pub(super) fn list_soon(&mut self, id: RangeId) {
        self.list_after(id, self.task.timing.spread.mul_f64(fastrand::f64()));
    }

    /// Queues a list of a range after a wait, unless it is listed before.
    pub(super) fn list_after(&mut self, id: RangeId, wait: Duration) {
        let Some(range) = self.ranges.get_mut(id) else { return };
        if !std::mem::replace(&mut range.work.later, true) {
            self.jobs.spawn(async move {
                sleep(wait).await;
                Done::List(id)
            });
        }
    }

    /// Lists a service whose endpoints cannot be connected: were it still registered like that, the
    /// watch would have told no more than that. Of a whole prefix, that service alone, if its keys can be
    /// told from others'.
    pub(super) fn check(&mut self, service: ServiceName) {
        if let Some(id) = self.ranges.find(&service) {
            return self.list(id);
        }
        if !self.ranges.whole {
            return;
        }
        let scope = self.ranges.scope_of(&service).filter(|scope| !scope.layout.is_whole());
        let Some(scope) = scope else {
            return self.ranges.ids().into_iter().for_each(|id| self.list_soon(id));
        };
        if !self.checks.contains_key(&service) {
            self.checks.insert(service.clone(), Vec::new());
            let list = self.read(scope);
            self.jobs.spawn(async move { Done::Checked(service, list.await) });
        }
    }

    pub(super) fn checked(
        &mut self,
        service: &ServiceName,
        result: Result<Found, EtcdError>,
    ) -> Result<(), Ended> {
        let replay = self.checks.remove(service).unwrap_or_default();
        let Found { list, items } = result?;
        self.heard = Instant::now();
        let (slot, revision) = (self.task.slot, list.position.revision);
        let items = items.into_iter().map(|(_, item)| item).collect();
        let listing = Listing { items, replay, revision, fresh: false, cut: list.cut };
        let changed = self.task.board(|board| board.list(slot, service, listing));
        self.task.status.count_resync();
        tracing::info!(source = %self.task.name, %service, revision, changed, "listed in doubt");
        Ok(())
    }

    /// Starts as many lists as may run at a time.
    pub(super) fn start_lists(&mut self) {
        while self.lists < MAX_LISTS
            && let Some(id) = self.to_list.pop_front()
        {
            let Some(range) = self.ranges.get_mut(id) else { continue };
            range.work.replay.clear();
            range.work.later = false;
            let scope = range.scope.clone();
            let (before, list) = (self.ranges.seen, self.read(scope));
            self.lists += 1;
            self.jobs.spawn(async move { Done::Listed(id, before, list.await) });
        }
    }

    /// Reads the keys of a scope. Values are read as the pages come in, so that no single moment pays
    /// for all.
    fn read(&self, scope: Scope) -> impl Future<Output = Result<Found, EtcdError>> + use<> {
        let keys = if scope.service.is_some() { MAX_LISTED } else { MAX_LISTED_WHOLE };
        let limits = ListLimits { keys, pause: PAUSE };
        let (member, page) = (self.member.clone(), Arc::clone(&self.page));
        async move {
            let mut items = Vec::new();
            let list = member.list(scope.prefix.as_bytes(), limits, |kvs| {
                *page.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                match kvs {
                    Some(kvs) => items.extend(kvs.iter().flat_map(|kv| scope.items(kv))),
                    None => items.clear(),
                }
            });
            let list = list.await?;
            Ok(Found { list, items })
        }
    }

    /// Takes in what a list found.
    pub(super) fn listed(
        &mut self,
        id: RangeId,
        before: Option<Position>,
        result: Result<Found, EtcdError>,
    ) -> Result<(), Ended> {
        self.lists -= 1;
        let Some(range) = self.ranges.get_mut(id) else { return Ok(()) };
        range.work.listing = false;
        let doubted = std::mem::take(&mut range.work.doubted);
        let Found { list, items } = match result {
            Ok(found) => found,
            Err(error) if error.is_permission() && range.scope.service.is_some() => {
                self.refuse(id, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.heard = Instant::now();
        let position = list.position;
        // The list is linearizable, so only another history can be behind what was seen before it.
        if let Some(before) = before.filter(|before| !position.can_follow(*before)) {
            self.forget_history(before, position);
            let member = self.member.endpoint();
            let problem = format!("{member}: another cluster, or restored from a backup");
            return Err(Ended::new(Trouble::Stream, problem));
        }
        self.see(position);
        let changed = self.apply_list(id, list, items);
        self.report_list(id);
        self.settle();
        // In time it may yet have told of what has just changed; a new stream tells it in any case.
        if doubted && changed { Err(self.stall()) } else { Ok(()) }
    }

    /// Says whether anything is other than it was.
    fn apply_list(&mut self, id: RangeId, list: List, mut items: Vec<(ServiceName, Item)>) -> bool {
        let Some(range) = self.ranges.get_mut(id) else { return false };
        let revision = list.position.revision;
        let again = range.applied > 0 || range.fresh;
        let fresh = std::mem::take(&mut range.fresh);
        let new = || Listing { revision, fresh, ..Listing::default() };
        if range.scope.layout.is_whole() {
            let later = range.work.replay.iter().filter(|(_, change)| change.revision() > revision);
            range.named.list(&mut items, later);
        }
        let mut services: HashMap<ServiceName, Listing> = HashMap::new();
        for (service, item) in items {
            services.entry(service).or_insert_with(new).items.push(item);
        }
        for (service, change) in std::mem::take(&mut range.work.replay) {
            services.entry(service).or_insert_with(new).replay.push(change);
        }
        // The watch may be ahead of the list already.
        range.applied = range.applied.max(revision);
        range.known = range.known.max(revision);
        range.relist = Some(Instant::now() + jitter(self.task.timing.relist));
        if std::mem::take(&mut range.work.refusals) > 0 {
            self.task.status.well();
        }
        range.held = true;
        let (slot, name) = (self.task.slot, &self.task.name);
        let Scope { service, prefix, .. } = &range.scope;
        if list.cut {
            tracing::warn!(source = %name, %prefix, "too many keys, the last ones are left out");
        }
        let changed = match service {
            Some(service) => {
                let mut listing = services.remove(service).unwrap_or_else(new);
                listing.cut = list.cut;
                self.task.board(|board| board.list(slot, service, listing))
            }
            None => self.task.board(|board| board.list_all(slot, services, revision)),
        };
        if again {
            self.task.status.count_resync();
            tracing::info!(source = %name, %prefix, revision, changed, "listed again");
        }
        self.create(id);
        changed
    }

    fn report_list(&self, id: RangeId) {
        let Some(range) = self.ranges.get(id) else { return };
        match range.scope.service.clone() {
            Some(service) => self.task.report(Report::Listed(self.task.slot, service)),
            None => {
                self.task.status.well();
                self.task.report(Report::Up(self.task.slot));
            }
        }
    }
}
