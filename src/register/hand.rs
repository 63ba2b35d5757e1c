//! What a registration holds in etcd, and its next move. Pure: the keeper makes the moves and tells how
//! they went.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::formats::Written;
use crate::registry::etcd::{Expect, KeyChange, Kv, Lease, LeaseId};

use super::{
    claim::{Claim, Found, Ruling},
    report::{Loss, Progress, State},
    spec::Spec,
    wish::Wish,
};

/// Longest wait before a lost lease is replaced: all registrations of a cluster may have lost theirs
/// in one moment.
const SPREAD: Duration = Duration::from_millis(300);
/// Least time between two questions about the lease of a twin.
const LOOK: Duration = Duration::from_millis(200);

/// A move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Grant,
    KeepAlive(LeaseId),
    Read(String),
    /// Watch this key from this revision on.
    Watch(String, i64),
    Put(Written, LeaseId, Expect),
    /// Delete a key, if it is under this lease of ours.
    Delete(String, LeaseId),
    /// Ask what the lease of another writer has left.
    Look(LeaseId),
    Revoke(LeaseId),
    /// Nothing until then, or until something happens.
    Wait(Instant),
    /// Nothing is wanted and nothing is held.
    Idle,
    /// The same, for good.
    Gone,
}

/// The state of one registration in etcd, as far as it is known.
#[derive(Debug)]
pub(super) struct Hand {
    spec: Arc<Spec>,
    claim: Claim,
    /// [`Wish::generation`] that the claim knows of.
    generation: u64,
    lease: Option<Held>,
    /// Not before then is a lease asked for.
    grant_at: Instant,
    /// The key that matters, once there is a lease.
    key: Option<String>,
    /// Keys that may be under the lease: those that were tried to be written.
    touched: BTreeSet<String>,
    /// What is under the key, and the revision at which it was so; none when that has to be read.
    seen: Option<(Option<Kv>, i64)>,
    watching: bool,
    beat_at: Instant,
    /// Whether a beat was the last move, and another one comes before the next: an etcd that takes as
    /// long as it is between two beats would be asked nothing else.
    beaten: bool,
    read_at: Instant,
    /// When to ask about the lease of a twin again.
    look_at: Option<(LeaseId, Instant)>,
    /// Whether etcd has just confirmed something.
    fresh: bool,
    pub(super) progress: Progress,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    lease: Lease,
    /// It lives until then at least.
    until: Instant,
}

impl Hand {
    pub(super) fn new(spec: Arc<Spec>, progress: Progress) -> Self {
        let now = Instant::now();
        Self {
            claim: Claim::new(spec.ttl),
            spec,
            generation: 0,
            lease: None,
            grant_at: now,
            key: None,
            touched: BTreeSet::new(),
            seen: None,
            watching: false,
            beat_at: now,
            beaten: false,
            read_at: now,
            look_at: None,
            fresh: false,
            progress,
        }
    }

    /// The next move.
    pub(super) fn next(&mut self, wish: &Wish, now: Instant) -> Step {
        if !wish.is_wanted() {
            self.claim.release();
            self.claim.turn();
            return match self.lease {
                Some(held) => Step::Revoke(held.lease.id),
                None if wish.leaving => Step::Gone,
                None => Step::Idle,
            };
        }
        if self.generation != wish.generation {
            self.generation = wish.generation;
            self.claim.turn();
        }
        let Some(Held { lease, .. }) = self.lease else {
            return if self.grant_at > now { Step::Wait(self.grant_at) } else { Step::Grant };
        };
        if !std::mem::take(&mut self.beaten) && self.beat_at <= now {
            return Step::KeepAlive(lease.id);
        }
        let written = match self.spec.written(&wish.details, lease.id.get()) {
            Ok(written) => written,
            Err(problem) => {
                self.progress.wrong(problem.to_string());
                return Step::Wait(self.beat_at);
            }
        };
        self.turn_to(&written.key);
        match &self.seen {
            Some(_) if self.read_at <= now => Step::Read(written.key),
            None => Step::Read(written.key),
            Some((_, revision)) if !self.watching => Step::Watch(written.key, revision + 1),
            Some((kv, _)) => {
                let found = self.found(kv.as_ref(), &written, lease.id);
                let expect = kv.as_ref().map_or(Expect::Absent, |kv| Expect::Modified(kv.modified));
                self.act_on(&found, written, lease.id, expect, now)
            }
        }
    }

    /// The next move while etcd does only what needs no permission: keep the lease. None without one.
    pub(super) fn next_beat(&self, now: Instant) -> Option<Step> {
        let lease = self.lease?.lease.id;
        Some(if self.beat_at <= now { Step::KeepAlive(lease) } else { Step::Wait(self.beat_at) })
    }

    fn act_on(
        &mut self,
        found: &Found,
        written: Written,
        lease: LeaseId,
        expect: Expect,
        now: Instant,
    ) -> Step {
        let (ruling, taken) = self.claim.judge(found, now);
        if let Some(taken) = taken {
            self.lost(taken.into());
        }
        let due = self.beat_at.min(self.read_at);
        let key = &written.key;
        match ruling {
            Ruling::Held => {
                self.stand(State::Registered, now);
                self.progress.generation = self.generation;
                self.progress.problem = None;
                match self.touched.iter().find(|other| *other != key) {
                    Some(old) => Step::Delete(old.clone(), lease),
                    None => Step::Wait(due),
                }
            }
            Ruling::Yield => {
                self.stand(State::Shared, now);
                self.progress.wrong(format!(
                    "{key} was written by another process with this address, which keeps it; it is \
                     taken over when that one goes"
                ));
                match (found, self.look_at) {
                    (Found::Twin(twin), Some((known, at))) if *twin == known && at > now => {
                        Step::Wait(due.min(at))
                    }
                    (Found::Twin(twin), _) => Step::Look(*twin),
                    _ => Step::Wait(due),
                }
            }
            Ruling::Write => {
                self.stand(State::Registering, now);
                // Noted before: who asks may not learn that it was done.
                self.touched.insert(written.key.clone());
                Step::Put(written, lease, expect)
            }
            Ruling::WriteAt(at) => {
                let (state, problem) = match found {
                    Found::Rival(other) => (
                        State::Contested,
                        format!(
                            "{key} is held by {other}, not by {}: two hosts with one id? Give each \
                             its own `id`",
                            self.spec.address()
                        ),
                    ),
                    Found::Nothing => {
                        (State::Registering, format!("{key} was deleted by somebody else"))
                    }
                    _ => (State::Registering, format!("{key} was overwritten by somebody else")),
                };
                self.stand(state, now);
                self.progress.wrong(problem);
                Step::Wait(due.min(at))
            }
        }
    }

    fn stand(&mut self, standing: State, now: Instant) {
        self.progress.standing = standing;
        if std::mem::take(&mut self.fresh) && standing.is_found() {
            self.progress.confirmed = Some(now);
        }
    }

    fn found(&self, kv: Option<&Kv>, written: &Written, lease: LeaseId) -> Found {
        let Some(kv) = kv else { return Found::Nothing };
        if kv.lease == lease.get() {
            return if kv.value == written.value.as_bytes() { Found::Ours } else { Found::Former };
        }
        let Some(other) = LeaseId::of(kv.lease) else { return Found::Loose };
        match self.spec.address_in(&kv.key, &kv.value) {
            Some(address) if address == self.spec.address() => Found::Twin(other),
            Some(address) => Found::Rival(address),
            None => Found::Rival("something that cannot be read".to_owned()),
        }
    }

    /// Makes `key` the one that matters.
    fn turn_to(&mut self, key: &str) {
        if self.key.as_deref() != Some(key) {
            self.key = Some(key.to_owned());
            self.progress.key.clone_from(&self.key);
            (self.seen, self.watching) = (None, false);
        }
    }

    fn lost(&mut self, loss: Loss) {
        if let Some(at) = Loss::ALL.iter().position(|known| *known == loss) {
            self.progress.losses[at] += 1;
        }
    }

    /// A new connection: what the last one told may be out of date.
    pub(super) fn connected(&mut self, now: Instant) {
        (self.seen, self.watching, self.beat_at, self.look_at) = (None, false, now, None);
    }

    /// The watch has ended. Where the lease stands is asked at once: its end may be why.
    pub(super) fn unwatched(&mut self, now: Instant) {
        (self.seen, self.watching, self.beat_at) = (None, false, now);
    }

    /// The watch is there, which took no time: the next move still comes before a beat.
    pub(super) const fn watched(&mut self) {
        (self.watching, self.beaten) = (true, true);
    }

    /// What was asked for at `sent` was granted.
    pub(super) fn granted(&mut self, lease: Lease, sent: Instant) {
        self.hold(lease, sent);
        (self.key, self.seen, self.watching) = (None, None, false);
        self.touched.clear();
        self.progress.lease = Some(lease.id);
    }

    /// What was asked at `sent` was answered: whether the lease still lives.
    pub(super) fn kept(&mut self, alive: bool, sent: Instant) {
        match self.lease {
            Some(held) if alive => self.hold(held.lease, sent),
            _ => self.lease_lost(sent),
        }
    }

    fn hold(&mut self, lease: Lease, sent: Instant) {
        self.lease = Some(Held { lease, until: sent + lease.ttl });
        self.progress.until = Some(sent + lease.ttl);
        // At most a third of its time, and each in its own moment.
        self.beat_at = sent + (lease.ttl / 3).mul_f64(1.0 - fastrand::f64() / 10.0);
        (self.beaten, self.fresh) = (true, true);
    }

    /// The lease is gone, and everything under it.
    pub(super) fn lease_lost(&mut self, now: Instant) {
        if self.progress.standing.is_found() {
            self.lost(Loss::Lease);
        }
        self.forget();
        self.grant_at = now + SPREAD.mul_f64(fastrand::f64());
    }

    /// The lease was ended by us.
    pub(super) fn forget(&mut self) {
        self.claim.release();
        (self.lease, self.key, self.seen, self.watching) = (None, None, None, false);
        self.touched.clear();
        let progress = &mut self.progress;
        (progress.lease, progress.until, progress.key) = (None, None, None);
        progress.standing = State::Registering;
    }

    pub(super) fn read(&mut self, kv: Option<Kv>, revision: i64, now: Instant) {
        let ttl = self.ttl();
        self.read_at = now + ttl.mul_f64(1.0 - fastrand::f64() / 5.0);
        self.fresh = true;
        let news = self.seen.as_ref().is_none_or(|(_, seen)| *seen <= revision);
        if news {
            self.doubt_lease_if_gone(kv.as_ref(), now);
            self.seen = Some((kv, revision));
        }
    }

    /// The watch tells of a change.
    pub(super) fn noticed(&mut self, change: KeyChange, now: Instant) {
        if self.seen.as_ref().is_some_and(|(_, seen)| *seen < change.revision) {
            self.doubt_lease_if_gone(change.kv.as_ref(), now);
            self.seen = Some((change.kv, change.revision));
        }
    }

    /// A key that is gone may be gone with its lease, which is nobody's fault.
    fn doubt_lease_if_gone(&mut self, kv: Option<&Kv>, now: Instant) {
        let was_there = self.seen.as_ref().is_some_and(|(kv, _)| kv.is_some());
        if kv.is_none() && was_there {
            self.beat_at = now;
        }
    }

    /// A write went through, at this revision; none when the key was not as expected.
    pub(super) fn put(&mut self, written: Written, lease: LeaseId, revision: Option<i64>) {
        let Some(revision) = revision else {
            self.seen = None;
            return;
        };
        self.progress.writes += 1;
        self.fresh = true;
        let Written { key, value } = written;
        let kv = Kv {
            key: key.into_bytes(),
            value: value.into_bytes(),
            created: revision,
            modified: revision,
            lease: lease.get(),
        };
        self.seen = Some((Some(kv), revision));
    }

    /// A key is no longer under the lease.
    pub(super) fn deleted(&mut self, key: &str) {
        self.touched.remove(key);
    }

    /// What the lease of another writer has left, and was granted.
    pub(super) fn looked(
        &mut self,
        twin: LeaseId,
        left: Option<(Duration, Duration)>,
        now: Instant,
    ) {
        match left {
            // One that is kept alive never has as little left: who should do it is gone.
            Some((left, granted)) if left > granted / 4 => {
                self.look_at = Some((twin, now + (left - granted / 4).max(LOOK)));
            }
            _ => self.claim.turn(),
        }
    }

    /// How long the lease lives if nobody keeps it; none where there is none.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.lease.map(|held| held.until.saturating_duration_since(now))
    }

    /// As granted, else as wanted.
    pub(super) fn ttl(&self) -> Duration {
        self.lease.map_or(self.spec.ttl, |held| held.lease.ttl)
    }

    /// Whether a lease may live.
    pub(super) const fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    /// Forgets a lease that nobody has kept alive for twice its time, since a new leader gives every
    /// lease its whole time again. Only for one that leaves: leases stand still in an etcd that is down,
    /// so that this one may live after all, and its key would be taken for another writer's.
    pub(super) fn forget_if_ended(&mut self, now: Instant) {
        if self.lease.is_some_and(|held| held.until + held.lease.ttl < now) {
            self.forget();
        }
    }
}
