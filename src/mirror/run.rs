//! Does what the plans say, once or for as long as it is wanted.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use crate::config::EtcdSource;
use crate::formats::Layout;
use crate::model::ServiceName;
use crate::registry::{
    book::{Book, Scope},
    etcd::{
        EtcdError, Expect, Follow, Hold, Kv, Lease, LeaseId, ListLimits, Member, Members, News,
    },
};

use super::{Copy, LeftOut, Mirror, Names, Plan, Step, Why};

/// Writes under way at a time.
const AT_ONCE: usize = 16;
/// Steps before the news are read again.
const BATCH: usize = 256;
/// Without news for this long, nothing more is on its way.
const QUIET: Duration = Duration::from_millis(200);
/// Wait before what failed is tried again; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What is copied where.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where the originals are.
    pub from: (EtcdSource, Layout),
    /// Where the copies go.
    pub to: (EtcdSource, Layout),
    /// Which services.
    pub names: Names,
}

/// How a single run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    DryRun,
    /// Under a lease that nobody keeps alive.
    Leased(Duration),
    /// For ever.
    Permanent,
}

/// What a single run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Copies that were written, or would be.
    pub copies: Vec<Copy>,
    /// Records without a copy.
    pub left_out: Vec<LeftOut>,
    /// Copies that could not be written.
    pub failed: Vec<(Copy, EtcdError)>,
    /// The lease that they are under.
    pub lease: Option<Lease>,
}

/// What happens while a mirror runs.
#[derive(Debug)]
pub enum Event {
    /// The side that is copied has been read: keys, revision.
    Read(usize, i64),
    /// One side cannot be asked, or the lease not kept; copies stay as long as the lease lives.
    Trouble(EtcdError),
    /// Copies are put under this lease; after a loss, all of them again.
    Leased(Lease),
    /// Written.
    Put(Copy),
    /// Deleted, since its original is gone.
    Deleted(ServiceName, std::sync::Arc<str>),
    /// Not copied.
    LeftOut(LeftOut),
    /// Could not be written or deleted; it is tried again.
    Failed(String, EtcdError),
    /// Nothing is left to do: copies that are there, records left out.
    Settled(usize, usize),
}

/// Copies what is there now.
///
/// # Errors
/// [`EtcdError`] when one side cannot be read, or no lease be had. What cannot be written is in the
/// outcome.
pub async fn once(job: Job, mode: Mode) -> Result<Outcome, EtcdError> {
    let Job { from: (from, from_layout), to: (to, to_layout), names } = job;
    let mut mirror = Mirror::new(names.clone(), to_layout.clone());
    let mut here = Book::new(scope(from_layout, names.only()));
    mirror.here(here.list(list(from, here.scope()).await?.1));
    let mut there = Book::new(Scope::whole(to_layout));
    let (member, keys) = list(to, there.scope()).await?;
    mirror.there(there.list(keys));
    let mut outcome = Outcome::default();
    if let Mode::Leased(ttl) = mode {
        outcome.lease = Some(member.grant_mirrored(ttl).await?);
    }
    while let Some(Plan { steps, left_out, .. }) = mirror.plan() {
        outcome.left_out.extend(left_out);
        for step in steps {
            // Nothing there is ours, so there is nothing to delete.
            let Step::Put { copy, .. } = step else { continue };
            if mode != Mode::DryRun {
                let lease = outcome.lease.map(|lease| lease.id);
                let (key, value) = (copy.key.as_bytes(), copy.value.as_bytes());
                match member.put_if(key, value, lease, Expect::Absent).await {
                    // None: it has come to be there meanwhile, from someone else.
                    Ok(_) => {}
                    Err(error) => {
                        outcome.failed.push((copy, error));
                        continue;
                    }
                }
            }
            outcome.copies.push(copy);
        }
    }
    Ok(outcome)
}

fn scope(layout: Layout, only: Option<&ServiceName>) -> Scope {
    let one = only.and_then(|service| Scope::of(layout.clone(), service.clone()));
    one.unwrap_or_else(|| Scope::whole(layout))
}

async fn list(source: EtcdSource, scope: &Scope) -> Result<(Member, Vec<Kv>), EtcdError> {
    let (member, _) = Members::new(source).connect_any().await?;
    let limits = ListLimits { keys: 1_000_000, pause: Duration::from_millis(100) };
    let mut keys = Vec::new();
    let page = |page: Option<Vec<Kv>>| match page {
        Some(page) => keys.extend(page),
        None => keys.clear(),
    };
    member.list(scope.prefix().as_bytes(), limits, page).await?;
    Ok((member, keys))
}

/// Copies what is there and what changes until `ended`, and then takes all copies away; false when
/// etcd could not be told, so that they go when the lease runs out. Tells what happens; no error ends
/// it.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn follow(
    job: Job,
    ttl: Duration,
    ended: impl Future<Output = ()>,
    tell: impl FnMut(Event),
) -> bool {
    let Job { from: (from, from_layout), to: (to, to_layout), names } = job;
    let here = Book::new(scope(from_layout, names.only()));
    let there = Book::new(Scope::whole(to_layout.clone()));
    let mut run = Run {
        originals: Follow::new(from, here.scope().prefix().into()),
        copies: Follow::new(to.clone(), there.scope().prefix().into()),
        hold: Hold::new(to, ttl, true),
        mirror: Mirror::new(names, to_layout),
        here,
        there,
        read: (false, false),
        writer: None,
        retry: None,
        wait: RETRY,
        settle: None,
        settled: None,
        tell,
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            () = run.turn() => {}
        }
    }
    run.hold.end().await
}

struct Run<T> {
    originals: Follow,
    copies: Follow,
    hold: Hold,
    mirror: Mirror,
    here: Book,
    there: Book,
    /// Whether each side has been read once: before that nothing is known to be gone.
    read: (bool, bool),
    writer: Option<(Member, Lease)>,
    /// When to try again what failed.
    retry: Option<(Instant, Vec<ServiceName>)>,
    wait: Duration,
    /// When to tell how things are.
    settle: Option<Instant>,
    /// What was told last.
    settled: Option<(usize, usize)>,
    tell: T,
}

impl<T: FnMut(Event)> Run<T> {
    /// Does a batch of what is to do, or waits for something.
    async fn turn(&mut self) {
        if let Some((member, lease)) = self.writer.clone()
            && self.read == (true, true)
            && self.mirror.is_dirty()
        {
            self.work(&member, lease.id).await;
            return;
        }
        let retry = self.retry.as_ref().map(|(at, _)| *at);
        tokio::select! {
            news = self.originals.next() => {
                let mut next = Some(news);
                // All that is there, so that it takes one plan a service rather than one a change.
                while let Some(news) = next {
                    self.here(news);
                    next = self.originals.ready();
                }
            }
            news = self.copies.next() => {
                let mut next = Some(news);
                while let Some(news) = next {
                    self.there(news);
                    next = self.copies.ready();
                }
            }
            () = self.hold.changed() => self.held(),
            () = until(retry) => {
                for service in self.retry.take().map(|(_, services)| services).unwrap_or_default() {
                    self.mirror.again(service);
                }
            }
            () = until(self.settle) => self.settle(),
        }
    }

    fn here(&mut self, news: News) {
        let diffs = match news {
            News::Lost(error) => return (self.tell)(Event::Trouble(error)),
            News::Listed(keys, position) => {
                self.read.0 = true;
                (self.tell)(Event::Read(keys.len(), position.revision));
                self.here.list(keys)
            }
            News::Changed(changes) => self.here.apply(changes),
        };
        self.mirror.here(diffs);
        self.settle_later();
    }

    fn there(&mut self, news: News) {
        let diffs = match news {
            News::Lost(error) => return (self.tell)(Event::Trouble(error)),
            News::Listed(keys, _) => {
                self.read.1 = true;
                self.there.list(keys)
            }
            News::Changed(changes) => self.there.apply(changes),
        };
        self.mirror.there(diffs);
        self.settle_later();
    }

    fn held(&mut self) {
        let held = self.hold.now();
        if let Some(error) = held.problem {
            (self.tell)(Event::Trouble(error));
        }
        let before = self.writer.as_ref().map(|(_, lease)| lease.id);
        if let Some((_, lease)) = &held.writer {
            self.mirror.own(Some(lease.id));
            if before != Some(lease.id) {
                (self.tell)(Event::Leased(*lease));
            }
        }
        self.writer = held.writer;
        self.settle_later();
    }

    /// Does a batch.
    async fn work(&mut self, member: &Member, lease: LeaseId) {
        let mut steps = Vec::new();
        while steps.len() < BATCH
            && let Some(plan) = self.mirror.plan()
        {
            // What another mirror writes here is its business, and not worth a line each.
            for left_out in plan.left_out.into_iter().filter(|left| left.why != Why::IsCopy) {
                (self.tell)(Event::LeftOut(left_out));
            }
            steps.extend(plan.steps);
        }
        if steps.is_empty() {
            return;
        }
        // Puts before deletes, as each plan has it: an address that moves to another key stays.
        let (puts, deletes): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Put { .. }));
        let mut failed = Vec::new();
        for steps in [puts, deletes] {
            let doing = steps.into_iter().map(|step| async {
                let done = perform(member, lease, &step).await;
                (step, done)
            });
            let mut doing = stream::iter(doing).buffer_unordered(AT_ONCE);
            while let Some((step, done)) = doing.next().await {
                match (done, step) {
                    (Ok(true), Step::Put { copy, .. }) => (self.tell)(Event::Put(copy)),
                    (Ok(true), Step::Delete { service, key }) => {
                        (self.tell)(Event::Deleted(service, key));
                    }
                    // Not as it was; the news of that will bring another plan.
                    (Ok(false), _) => {}
                    (Err(error), step) => failed.push((step, error)),
                }
            }
        }
        self.failed(failed);
    }

    fn failed(&mut self, failed: Vec<(Step, EtcdError)>) {
        if failed.is_empty() {
            self.wait = RETRY;
            return;
        }
        let mut services = Vec::new();
        for (step, error) in failed {
            let (service, key) = match step {
                Step::Put { copy, .. } => (copy.service, copy.key),
                Step::Delete { service, key } => (service, key.to_string()),
            };
            if !error.is_permission() {
                self.hold.doubt();
            }
            (self.tell)(Event::Failed(key, error));
            services.push(service);
        }
        let (_, waiting) =
            self.retry.get_or_insert_with(|| (Instant::now() + self.wait, Vec::new()));
        waiting.extend(services);
        self.wait = (self.wait * 2).min(RETRY_MAX);
    }

    /// Something has changed; once it is quiet, that is told in sum.
    fn settle_later(&mut self) {
        self.settle = Some(Instant::now() + QUIET);
    }

    /// Tells how things are when nothing is left to do, even if nothing ever was.
    fn settle(&mut self) {
        self.settle = None;
        if self.writer.is_none()
            || self.read != (true, true)
            || self.mirror.is_dirty()
            || self.retry.is_some()
        {
            return;
        }
        let counts = self.mirror.counts();
        if self.settled.replace(counts) != Some(counts) {
            (self.tell)(Event::Settled(counts.0, counts.1));
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// False when the other side is not as it was when the step was planned.
async fn perform(member: &Member, lease: LeaseId, step: &Step) -> Result<bool, EtcdError> {
    let done = match step {
        Step::Put { copy, new } => {
            let expect = if *new { Expect::Absent } else { Expect::Under(lease) };
            member.put_if(copy.key.as_bytes(), copy.value.as_bytes(), lease, expect).await?
        }
        Step::Delete { key, .. } => member.delete_if(key.as_bytes(), Expect::Under(lease)).await?,
    };
    Ok(done.is_some())
}
