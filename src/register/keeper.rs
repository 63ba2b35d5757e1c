//! Keeps one registration as it is wanted, through everything that etcd may do.
//!
//! A session is the work over one connection to one member. When anything goes wrong with it the next
//! member is asked, early enough that the lease lives on while a single member is well. A member that
//! takes its time is given that time, while others are asked beside it; when all have failed, they are
//! asked again and again after waits that grow to a few seconds. It ends only when the registration has
//! been told to leave, and nothing of it is left in etcd.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::backoff::Backoff;
use crate::registry::etcd::{EtcdError, KeyChange};

use super::{
    hand::{Hand, Step},
    report::{Progress, State},
    spec::Spec,
    store::{Line, Store, Watch},
    wish::Wish,
};

/// Longest limit of one call or connection, and longest wait after failures.
const LONGEST: Duration = Duration::from_secs(5);
/// Shortest limit of one call: less than that is no sign of trouble on a busy machine.
const SHORTEST: Duration = Duration::from_millis(500);
/// First wait after all members have failed.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A watch that ends sooner than this is no accident.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// The keeper of one registration.
pub(super) struct Keeper<S: Store> {
    spec: Arc<Spec>,
    store: Arc<S>,
    wish: watch::Receiver<Wish>,
    progress: Arc<watch::Sender<Progress>>,
    hand: Hand,
    backoff: Backoff,
    /// Connections and sessions in a row that came to nothing.
    failures: usize,
    /// The longest that an answer has taken of late.
    pace: Duration,
}

/// How a session ended.
enum End<L> {
    /// Nothing is wanted and nothing is held; for good.
    Gone,
    /// Nothing is wanted and nothing is held.
    Idle,
    /// There is a new connection, with new credentials.
    Renewed(L),
    /// Another member is to be asked. When this one was asked what went wrong.
    Failed(String, Instant),
}

/// What went wrong with one call.
enum Trouble {
    Etcd(EtcdError),
    Late(Duration),
}

impl<S: Store> Keeper<S> {
    pub(super) fn new(
        spec: Arc<Spec>,
        store: S,
        wish: watch::Receiver<Wish>,
        progress: Arc<watch::Sender<Progress>>,
    ) -> Self {
        // What an earlier keeper has counted, and no more: it may have ended at any point.
        let Progress { writes, failures, losses, started, .. } = progress.borrow().clone();
        let counted = Progress { writes, failures, losses, started, ..Progress::default() };
        let longest = (spec.ttl / 3).clamp(Duration::from_secs(1), LONGEST);
        Self {
            hand: Hand::new(Arc::clone(&spec), counted),
            spec,
            store: Arc::new(store),
            wish,
            progress,
            backoff: Backoff::new(FIRST_WAIT, longest),
            failures: 0,
            pace: Duration::ZERO,
        }
    }

    /// Works until the registration has left.
    pub(super) async fn run(mut self) {
        let (mut line, mut begin) = (None, Instant::now());
        loop {
            if self.is_at_rest() {
                self.publish();
                if self.wish.borrow().leaving || self.wish.changed().await.is_err() {
                    return;
                }
                begin = Instant::now();
                continue;
            }
            let connected = match line.take() {
                Some(line) => line,
                None => match self.connect(begin).await {
                    Some(line) => line,
                    None => continue,
                },
            };
            match self.session(connected).await {
                End::Gone => return self.publish(),
                End::Idle => {}
                End::Renewed(renewed) => line = Some(renewed),
                End::Failed(problem, asked) => begin = self.failed(problem, asked),
            }
        }
    }

    /// Whether nothing is wanted and nothing is held.
    fn is_at_rest(&mut self) -> bool {
        let wish = self.wish.borrow();
        if wish.leaving {
            self.hand.forget_if_ended(Instant::now());
        }
        !wish.is_wanted() && !self.hand.has_lease()
    }

    /// Connects to whichever member answers first, from `begin` on. None once there is nothing to do.
    ///
    /// The second is asked early enough for the lease; from then on there is one more in each
    /// [`Self::patience`], so that only a few are ever asked at a time.
    async fn connect(&mut self, mut begin: Instant) -> Option<S::Line> {
        let mut trying = FuturesUnordered::new();
        while !self.is_at_rest() {
            tokio::select! {
                () = sleep_until(begin) => {
                    trying.push(attempt(Arc::clone(&self.store), LONGEST));
                    begin = Instant::now() + match trying.len() {
                        1 => self.limit(),
                        _ => self.patience(),
                    };
                }
                Some((connected, asked)) = trying.next() => match connected {
                    Ok(line) => {
                        self.pace = self.pace.max(asked.elapsed());
                        return Some(line);
                    }
                    Err(trouble) => begin = self.failed(trouble.to_string(), asked),
                },
                // Whatever is wanted now, it is worth a try.
                Ok(()) = self.wish.changed() => if trying.is_empty() {
                    begin = Instant::now();
                },
            }
        }
        None
    }

    /// Counts a failure of what was asked then, and says when to ask again: at once while there is a
    /// member that has not been asked. What it took to fail is part of the wait.
    fn failed(&mut self, problem: String, asked: Instant) -> Instant {
        self.note(problem);
        self.failures += 1;
        match self.failures.is_multiple_of(self.store.members().max(1)) {
            true => asked + self.backoff.wait(),
            false => asked,
        }
    }

    fn note(&mut self, problem: String) {
        let spec = &self.spec;
        match self.hand.progress.problem {
            None => {
                tracing::warn!(name = %spec.name, %problem, "registration: etcd is in trouble, trying on")
            }
            Some(_) => tracing::debug!(name = %spec.name, %problem, "registration: trying on"),
        }
        self.hand.progress.failures += 1;
        self.hand.progress.wrong(problem);
        self.publish();
    }

    async fn session(&mut self, line: S::Line) -> End<S::Line> {
        self.hand.connected(Instant::now());
        let mut watch: Option<(<S::Line as Line>::Watch, Instant)> = None;
        // Under way while etcd refuses what needs permission.
        let mut renewal: Option<Renewal<S::Line>> = None;
        loop {
            let (wish, now) = (self.wish.borrow_and_update().clone(), Instant::now());
            let step = match renewal {
                None => self.hand.next(&wish, now),
                Some(_) => match self.hand.next_beat(now).filter(|_| wish.is_wanted()) {
                    Some(step) => step,
                    None => {
                        let problem = self.hand.progress.problem.clone();
                        return End::Failed(problem.unwrap_or_default(), now);
                    }
                },
            };
            let until = match step {
                Step::Gone => return End::Gone,
                Step::Idle => {
                    self.publish();
                    return End::Idle;
                }
                Step::Watch(key, from) => {
                    watch = Some((line.watch(&key, from), now));
                    self.hand.watched();
                    continue;
                }
                Step::Wait(until) => until,
                step => match self.perform(&line, step).await {
                    Ok(()) => continue,
                    Err(Trouble::Etcd(error)) if error.is_lease_gone() => {
                        self.hand.lease_lost(Instant::now());
                        continue;
                    }
                    Err(Trouble::Etcd(error)) if error.is_refusal() && self.hand.has_lease() => {
                        // The lease needs no permission: it is kept while new credentials are tried.
                        self.note(error.to_string());
                        renewal = Some(self.renew(now));
                        continue;
                    }
                    Err(trouble) => return End::Failed(trouble.to_string(), now),
                },
            };
            if self.hand.progress.standing.is_found() && renewal.is_none() {
                self.failures = 0;
                self.backoff.reset();
            }
            self.publish();
            tokio::select! {
                changed = self.wish.changed() => if changed.is_err() {
                    return End::Gone;
                },
                change = next(&mut watch) => match change {
                    Ok(change) => self.hand.noticed(change, Instant::now()),
                    Err(error) => {
                        let since = watch.take().map_or(now, |(_, since)| since);
                        if since.elapsed() < SHORT_WATCH {
                            return End::Failed(error.to_string(), Instant::now());
                        }
                        self.hand.unwatched(Instant::now());
                    }
                },
                (renewed, asked) = ready(&mut renewal) => match renewed {
                    Ok(line) => return End::Renewed(line),
                    Err(trouble) => {
                        self.note(trouble.to_string());
                        renewal = Some(self.renew(asked));
                    }
                },
                () = sleep_until(until) => {}
            }
        }
    }

    /// Connects anew, with credentials read anew, some time after it was asked in vain.
    fn renew(&mut self, asked: Instant) -> Renewal<S::Line> {
        let (begin, limit) = (asked + self.backoff.wait(), self.patience());
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            sleep_until(begin).await;
            attempt(store, limit).await
        })
    }

    /// Makes a move that asks etcd something.
    async fn perform(&mut self, line: &S::Line, step: Step) -> Result<(), Trouble> {
        let (sent, limit) = (Instant::now(), self.limit());
        let hand = &mut self.hand;
        match step {
            Step::Grant => {
                hand.granted(within(limit, line.grant(self.spec.ttl)).await?, sent);
            }
            Step::KeepAlive(lease) => {
                hand.kept(within(limit, line.keep_alive(lease)).await?, sent);
                self.publish();
            }
            Step::Read(key) => {
                let (kv, revision) = within(limit, line.get(&key)).await?;
                hand.read(kv, revision, Instant::now());
            }
            Step::Put(written, lease, expect) => {
                let put = line.put_if(&written.key, &written.value, lease, expect);
                let revision = within(limit, put).await?;
                hand.put(written, lease, revision);
            }
            Step::Delete(key, lease) => {
                within(limit, line.delete_under(&key, lease)).await?;
                hand.deleted(&key);
            }
            Step::Look(lease) => {
                let left = within(limit, line.time_left(lease)).await?;
                hand.looked(lease, left, Instant::now());
            }
            Step::Revoke(lease) => {
                within(limit, line.revoke(lease)).await?;
                hand.forget();
                tracing::info!(name = %self.spec.name, "taken out of the registry");
            }
            Step::Watch(..) | Step::Wait(_) | Step::Idle | Step::Gone => {}
        }
        self.pace = sent.elapsed().max(self.pace.mul_f64(0.9));
        Ok(())
    }

    /// Limit of one call: with a beat each third of the lease's time there is time for three members
    /// before the lease ends. An etcd that is slow is no better for being asked in haste: it is given
    /// twice what it took of late, and twice as much with each round of failures.
    fn limit(&self) -> Duration {
        let rounds = self.failures / self.store.members().max(1);
        let doubled = 1 << rounds.min(8);
        let first = (self.hand.ttl() / 4).clamp(SHORTEST, LONGEST);
        let limit = first.saturating_mul(doubled).max(2 * self.pace).min(self.patience());
        // The first member that is silent leaves half of what is left of the lease to the others, unless
        // etcd was slower than that of late.
        match self.hand.left(Instant::now()) {
            Some(left) if self.failures == 0 && !left.is_zero() => {
                limit.min((left / 2).max(self.pace.mul_f64(1.25)).max(SHORTEST))
            }
            _ => limit,
        }
    }

    /// Longest time that one member alone is waited for: whatever has become of that one, the way back
    /// takes no longer than is promised.
    fn patience(&self) -> Duration {
        (self.hand.ttl() / 2 + Duration::from_secs(1)).min(LONGEST)
    }

    fn publish(&self) {
        let new = &self.hand.progress;
        let name = &self.spec.name;
        let wanted = self.wish.borrow().is_wanted();
        self.progress.send_if_modified(|old| {
            if old.standing != new.standing && wanted {
                let (key, problem) = (new.key.as_deref(), new.problem.as_deref());
                match new.standing {
                    State::Registered => tracing::info!(%name, key, "registered"),
                    standing => {
                        let standing = standing.as_str();
                        tracing::warn!(%name, key, standing, problem, "not registered as wanted");
                    }
                }
            }
            let changed = old != new;
            if changed {
                old.clone_from(new);
            }
            changed
        });
    }
}

/// A connection being made.
type Renewal<L> = Pin<Box<dyn Future<Output = Attempt<L>> + Send>>;
/// What became of an attempt to connect, and when it began.
type Attempt<L> = (Result<L, Trouble>, Instant);

async fn ready<L>(renewal: &mut Option<Renewal<L>>) -> Attempt<L> {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

async fn next<W: Watch>(watch: &mut Option<(W, Instant)>) -> Result<KeyChange, EtcdError> {
    match watch {
        Some((watch, _)) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Connects to the next member.
async fn attempt<S: Store>(store: Arc<S>, limit: Duration) -> Attempt<S::Line> {
    let asked = Instant::now();
    (within(limit, store.connect()).await, asked)
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, Trouble> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(Trouble::Etcd),
        Err(_) => Err(Trouble::Late(limit)),
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Etcd(error) => error.fmt(f),
            Self::Late(limit) => write!(f, "etcd does not answer within {limit:?}"),
        }
    }
}
