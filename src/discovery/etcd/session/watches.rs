//! Watches: what the one stream says about the many ranges on it.

use std::collections::HashMap;

use etcd_client::WatchResponse;
use tokio::time::{Instant, sleep};

use crate::discovery::desk::Report;
use crate::discovery::table::Change;
use crate::discovery::timing::LARGE_RESPONSE;
use crate::discovery::trouble::{Ended, Trouble};
use crate::model::ServiceName;
use crate::registry::etcd::{Position, Watch, WatchRequest};

use super::super::ranges::{RangeId, WatchState};
use super::creating::Creating;
use super::{Done, Session};

impl Session<'_> {
    /// Watches a range from where it was left, unless it is watched.
    pub(super) fn create(&mut self, id: RangeId) {
        let Some(range) = self.ranges.get_mut(id) else { return };
        if range.work.watch != WatchState::None {
            return;
        }
        range.work.watch = WatchState::Asked;
        let prefix = range.scope.prefix.as_bytes().to_vec();
        self.watch.request(WatchRequest::Create { prefix, from: range.applied + 1 });
        self.creating.push(id);
    }

    /// Takes in one response.
    ///
    /// # Errors
    /// What ends the session.
    pub(super) fn response(&mut self, response: &WatchResponse) -> Result<(), Ended> {
        (self.heard, self.stream_heard) = (Instant::now(), Instant::now());
        if let Some(header) = response.header() {
            // The header of a compacted watch is empty; the one with which etcd's grpc-proxy lets somebody
            // share a watch says where that was to start. Both are of no cluster. The term is the
            // member's own: that of one that is cut off grows without anyone following it.
            if header.revision() > 0 && header.cluster_id() != 0 {
                self.see(Position { term: 0, ..Position::from(header) });
            }
        }
        let id = match (response.created(), response.canceled()) {
            (true, true) => self.creating.refused(),
            (true, false) => self.creating.created(response.watch_id()),
            (false, _) => self.watching.get(&response.watch_id()).copied(),
        };
        if response.canceled() {
            self.watching.remove(&response.watch_id());
            return id.map_or(Ok(()), |id| self.canceled(id, response));
        }
        if response.created() {
            self.created(id, response.watch_id());
        } else if !response.events().is_empty() {
            if let Some(id) = id {
                self.events(id, response);
            }
        } else if let Some(header) = response.header() {
            self.progress(id, header.revision());
        }
        self.settle();
        Ok(())
    }

    fn created(&mut self, id: Option<RangeId>, watch: i64) {
        let range = id.and_then(|id| Some((id, self.ranges.get_mut(id)?)));
        let Some((id, range)) = range else {
            // Forgotten meanwhile.
            self.watch.request(WatchRequest::Cancel(watch));
            return;
        };
        range.work.watch = WatchState::On { id: watch, since: Instant::now() };
        self.watching.insert(watch, id);
        if self.creating.is_empty() {
            // Proof that all is up to date need not wait for the next beat.
            self.ask();
        }
    }

    /// The stream, or one watch on it, has come as far as `revision` without anything to tell.
    fn progress(&mut self, id: Option<RangeId>, revision: i64) {
        if let Some(range) = id.and_then(|id| self.ranges.get_mut(id)) {
            // In step with the events of this watch, so that it may resume from here.
            range.applied = range.applied.max(revision);
            range.known = range.known.max(revision);
            return;
        }
        self.tells_progress = true;
        if self.creating.is_empty() {
            for (_, range) in self.ranges.iter_mut() {
                if range.work.watch != WatchState::None {
                    range.known = range.known.max(revision);
                }
            }
        }
    }

    fn events(&mut self, id: RangeId, response: &WatchResponse) {
        let Some(range) = self.ranges.get_mut(id) else { return };
        let kvs = response.events().iter().filter_map(|event| event.kv());
        let (mut bytes, mut last) = (0, 0);
        for kv in kvs {
            bytes += kv.key().len() + kv.value().len();
            last = last.max(kv.mod_revision());
        }
        let mut services: HashMap<ServiceName, Vec<Change>> = HashMap::new();
        for event in response.events() {
            // What a later list has shown already.
            if event.kv().is_none_or(|kv| kv.mod_revision() <= range.applied) {
                continue;
            }
            for (service, change) in range.changes(event) {
                if range.work.listing {
                    range.work.replay.push((service.clone(), change.clone()));
                }
                if let Some(check) = self.checks.get_mut(&service) {
                    check.push(change.clone());
                }
                services.entry(service).or_default().push(change);
            }
        }
        // A response this large may be only a part of its last revision: the rest may be on its way, and
        // would be lost if the watch resumed after it.
        let large = bytes >= LARGE_RESPONSE;
        range.applied = range.applied.max(if large { last - 1 } else { last });
        range.known = range.known.max(range.applied);
        let hold = large.then(|| Instant::now() + self.task.timing.fragment);
        let count: usize = services.values().map(Vec::len).sum();
        self.task.status.count_events(count as u64);
        let slot = self.task.slot;
        self.task.board(|board| {
            for (service, changes) in services {
                board.apply(slot, &service, changes, hold);
            }
        });
    }

    /// etcd has ended one watch; the stream goes on.
    fn canceled(&mut self, id: RangeId, response: &WatchResponse) -> Result<(), Ended> {
        let Some(range) = self.ranges.get_mut(id) else { return Ok(()) };
        let watch = std::mem::take(&mut range.work.watch);
        if matches!(watch, WatchState::On { since, .. } if since.elapsed() >= self.task.timing.backoff_max)
        {
            range.work.refusals = 0;
        }
        let (name, prefix) = (&self.task.name, &range.scope.prefix);
        let (reason, compacted) = (response.cancel_reason(), response.compact_revision());
        tracing::info!(source = %name, %prefix, reason, compacted, "watch ended, taking it up again");
        if compacted > 0 {
            // What it would have told is gone; only a list can say what changed.
            self.task.status.count(Trouble::Compaction);
            self.list_soon(id);
        } else if Watch::is_token_problem(response) {
            self.log_in();
        } else if Watch::is_permission_problem(response) {
            if range.scope.service.is_none() {
                let problem = format!("{}: watch: {reason}", self.member.endpoint());
                return Err(Ended::new(Trouble::Permission, problem));
            }
            self.refuse(id, reason);
        } else {
            self.list_later(id);
        }
        Ok(())
    }

    /// The stream carries the login that it was opened with, and that has run out: new watches need a
    /// new stream, under a new login.
    fn log_in(&mut self) {
        if std::mem::replace(&mut self.logging_in, true) {
            return;
        }
        self.task.status.count(Trouble::Login);
        let (member, wait) = (self.member.clone(), self.logins.wait());
        self.jobs.spawn(async move {
            sleep(wait).await;
            Done::LoggedIn(member.refresh_token().await)
        });
    }

    /// Goes on with a new stream.
    pub(super) fn reopen(&mut self) {
        self.watch = self.member.watch();
        self.stream_heard = Instant::now();
        self.creating = Creating::default();
        self.watching.clear();
        for id in self.ranges.ids() {
            let Some(range) = self.ranges.get_mut(id) else { continue };
            range.work.watch = WatchState::None;
            if range.applied > 0 {
                self.create(id);
            }
        }
    }

    /// This user may not read the range. Someone may grant it, so it is tried again.
    pub(super) fn refuse(&mut self, id: RangeId, reason: &str) {
        self.task.status.count(Trouble::Permission);
        let is_held = self.is_held(id);
        let Some(range) = self.ranges.get(id) else { return };
        if let Some(service) = range.scope.service.clone() {
            if range.work.refusals == 0 {
                tracing::warn!(source = %self.task.name, %service, reason, "etcd refuses a service");
            }
            if is_held {
                let problem = format!("service {service}: {reason}; its last set stays in use");
                self.task.status.problem(&problem);
            }
            self.task.report(Report::Refused(self.task.slot, service, reason.to_owned()));
        }
        self.list_later(id);
    }

    /// Lists a range after a wait that grows with each refusal in a row.
    fn list_later(&mut self, id: RangeId) {
        let Some(range) = self.ranges.get_mut(id) else { return };
        let mut backoff = self.task.timing.backoff();
        let wait = (0..=range.work.refusals).map(|_| backoff.wait()).last().unwrap_or_default();
        range.work.refusals = (range.work.refusals + 1).min(16);
        self.list_after(id, wait);
    }
}
