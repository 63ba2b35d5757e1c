//! An etcd that does what a real one does once in a year. Its clock is tokio's, so that tests pause it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::register::store::{Line, Store, Watch};
use crate::registry::etcd::{EtcdError, Expect, KeyChange, Kv, Lease, LeaseId};

const FAR: Duration = Duration::from_secs(3600);

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Up,
    /// Refuses connections and breaks those that are open.
    Down,
    /// Takes everything and answers nothing.
    Hung,
    /// Does what it is asked and does not say so.
    Mute,
}

/// A cluster. Cloning shares it.
#[derive(Clone)]
pub(super) struct Fake(Arc<Shared>);

struct Shared {
    cluster: Mutex<Cluster>,
    /// Counts what has happened.
    events: watch::Sender<u64>,
}

struct Cluster {
    modes: Vec<Mode>,
    /// Counts the clusters that have been at this address.
    epoch: u64,
    revision: i64,
    keys: BTreeMap<String, Kv>,
    history: Vec<(String, KeyChange)>,
    leases: BTreeMap<i64, (Duration, Instant)>,
    next_lease: i64,
    /// Whether it does only what needs no permission.
    refusing: bool,
    /// Whether watches are told nothing.
    deaf: bool,
    /// How long each answer takes.
    delay: Duration,
    /// When which address was written.
    writes: Vec<(Instant, String)>,
}

impl Fake {
    pub(super) fn new(members: usize) -> Self {
        let cluster = Cluster {
            modes: vec![Mode::Up; members],
            epoch: 0,
            revision: 1,
            keys: BTreeMap::new(),
            history: Vec::new(),
            leases: BTreeMap::new(),
            next_lease: 1000,
            refusing: false,
            deaf: false,
            delay: Duration::from_millis(1),
            writes: Vec::new(),
        };
        let shared = Shared { cluster: Mutex::new(cluster), events: watch::Sender::new(0) };
        let fake = Self(Arc::new(shared));
        let (weak, mut events) = (Arc::downgrade(&fake.0), fake.events());
        tokio::spawn(async move {
            while let Some(shared) = weak.upgrade() {
                let ends = Self(shared).lock().leases.values().map(|(_, end)| *end).min();
                tokio::select! {
                    changed = events.changed() => if changed.is_err() { return },
                    () = sleep_until(ends.unwrap_or_else(|| Instant::now() + FAR)) => {}
                }
            }
        });
        fake
    }

    /// Counts what has happened.
    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.0.events.subscribe()
    }

    /// The cluster, with what has expired gone.
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = self.0.cluster.lock().unwrap();
        let now = Instant::now();
        let ended: Vec<i64> =
            cluster.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(id, _)| *id).collect();
        for id in ended {
            cluster.end(id);
            self.tell();
        }
        cluster
    }

    fn tell(&self) {
        self.0.events.send_modify(|count| *count += 1);
    }

    pub(super) fn set(&self, member: usize, mode: Mode) {
        self.lock().modes[member] = mode;
        self.tell();
    }

    pub(super) fn set_all(&self, mode: Mode) {
        self.lock().modes.fill(mode);
        self.tell();
    }

    /// Ends it as a crash does, and starts it again after `time`. Leases stand still meanwhile, and then
    /// have their whole time again.
    pub(super) async fn crash(&self, time: Duration) {
        self.set_all(Mode::Down);
        self.lock().leases.values_mut().for_each(|(_, end)| *end += time + FAR);
        sleep(time).await;
        self.lock().leases.values_mut().for_each(|(ttl, end)| *end = Instant::now() + *ttl);
        self.set_all(Mode::Up);
    }

    pub(super) fn refuse(&self, refusing: bool) {
        self.lock().refusing = refusing;
    }

    pub(super) fn deafen(&self, deaf: bool) {
        self.lock().deaf = deaf;
        self.tell();
    }

    /// How long each answer takes from now on.
    pub(super) fn slow(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Replaces it by one without keys and leases.
    pub(super) fn replace(&self) {
        let mut cluster = self.lock();
        cluster.epoch += 1;
        cluster.revision = 1;
        cluster.keys.clear();
        cluster.history.clear();
        cluster.leases.clear();
        drop(cluster);
        self.tell();
    }

    /// What is under a key, and its lease.
    pub(super) fn get(&self, key: &str) -> Option<(String, i64)> {
        let cluster = self.lock();
        let kv = cluster.keys.get(key)?;
        Some((String::from_utf8(kv.value.clone()).unwrap(), kv.lease))
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().keys.keys().cloned().collect()
    }

    pub(super) fn leases(&self) -> usize {
        self.lock().leases.len()
    }

    /// As an operator does it.
    pub(super) fn put(&self, key: &str, value: &str, lease: i64) {
        self.lock().put(key, value, lease);
        self.tell();
    }

    /// As an operator does it.
    pub(super) fn delete(&self, key: &str) {
        self.lock().delete(key);
        self.tell();
    }

    /// A lease that nobody keeps alive.
    pub(super) fn lend(&self, ttl: Duration) -> i64 {
        let lease = self.lock().grant(ttl).id.get();
        self.tell();
        lease
    }

    /// Ends a lease, as an operator does it.
    pub(super) fn end(&self, lease: i64) {
        self.lock().end(lease);
        self.tell();
    }

    /// How often keys were written by registrations since `since`.
    pub(super) fn writes_since(&self, since: Instant) -> usize {
        self.lock().writes.iter().filter(|(at, _)| *at >= since).count()
    }
}

impl Cluster {
    fn grant(&mut self, ttl: Duration) -> Lease {
        let ttl = ttl.max(Duration::from_secs(2));
        self.next_lease += 1;
        self.leases.insert(self.next_lease, (ttl, Instant::now() + ttl));
        Lease { id: LeaseId::of(self.next_lease).unwrap(), ttl }
    }

    fn end(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let keys: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, kv)| kv.lease == lease)
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter().for_each(|key| self.delete(key));
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) -> i64 {
        self.revision += 1;
        let revision = self.revision;
        let created = self.keys.get(key).map_or(revision, |kv| kv.created);
        let kv = Kv { key: key.into(), value: value.into(), created, modified: revision, lease };
        self.keys.insert(key.to_owned(), kv.clone());
        self.history.push((key.to_owned(), KeyChange { kv: Some(kv), revision }));
        revision
    }

    fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            let change = KeyChange { kv: None, revision: self.revision };
            self.history.push((key.to_owned(), change));
        }
    }
}

/// A registration's view of the cluster.
pub(super) struct FakeStore {
    pub(super) fake: Fake,
    pub(super) who: String,
    next: AtomicUsize,
}

impl FakeStore {
    pub(super) fn new(fake: &Fake, who: &str) -> Self {
        Self { fake: fake.clone(), who: who.to_owned(), next: AtomicUsize::new(0) }
    }
}

impl Store for FakeStore {
    type Line = FakeLine;

    async fn connect(&self) -> Result<FakeLine, EtcdError> {
        let member = self.next.fetch_add(1, Relaxed) % self.members();
        let epoch = self.fake.lock().epoch;
        let line = FakeLine { fake: self.fake.clone(), who: self.who.clone(), member, epoch };
        line.answer().await?;
        Ok(line)
    }

    fn members(&self) -> usize {
        self.fake.lock().modes.len()
    }
}

pub(super) struct FakeLine {
    fake: Fake,
    who: String,
    member: usize,
    epoch: u64,
}

impl FakeLine {
    fn error(call: &'static str, code: Option<i32>, message: &str) -> EtcdError {
        EtcdError::Call { endpoint: "fake".into(), call, code, message: message.to_owned() }
    }

    fn mode(&self) -> Result<Mode, EtcdError> {
        let cluster = self.fake.lock();
        match cluster.modes[self.member] {
            Mode::Down => Err(Self::error("any", None, "connection refused")),
            _ if cluster.epoch != self.epoch => Err(Self::error("any", None, "connection reset")),
            mode => Ok(mode),
        }
    }

    /// The way there, and a member that listens.
    async fn ask(&self) -> Result<(), EtcdError> {
        sleep(Duration::from_millis(1)).await;
        match self.mode()? {
            Mode::Hung => std::future::pending().await,
            _ => Ok(()),
        }
    }

    /// The way back.
    async fn answer(&self) -> Result<(), EtcdError> {
        let delay = self.fake.lock().delay;
        sleep(delay).await;
        match self.mode()? {
            Mode::Up => Ok(()),
            _ => std::future::pending().await,
        }
    }

    fn permit(&self) -> Result<(), EtcdError> {
        match self.fake.lock().refusing {
            true => Err(Self::error("any", Some(7), "etcdserver: permission denied")),
            false => Ok(()),
        }
    }

    fn check(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let message = "etcdserver: requested lease not found";
        match self.fake.lock().leases.contains_key(&lease.get()) {
            true => Ok(()),
            false => Err(Self::error("any", Some(5), message)),
        }
    }
}

impl Line for FakeLine {
    type Watch = FakeWatch;

    async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        self.ask().await?;
        self.permit()?;
        let lease = self.fake.lock().grant(ttl);
        self.fake.tell();
        self.answer().await?;
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        self.ask().await?;
        let alive = match self.fake.lock().leases.get_mut(&lease.get()) {
            Some((ttl, end)) => {
                *end = Instant::now() + *ttl;
                true
            }
            None => false,
        };
        self.answer().await?;
        Ok(alive)
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<(Duration, Duration)>, EtcdError> {
        self.ask().await?;
        let found = self.fake.lock().leases.get(&lease.get()).copied();
        self.answer().await?;
        Ok(found.map(|(ttl, end)| {
            let left = end.saturating_duration_since(Instant::now());
            (Duration::from_secs(left.as_secs()), ttl)
        }))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        self.ask().await?;
        self.permit()?;
        self.fake.end(lease.get());
        self.answer().await
    }

    async fn get(&self, key: &str) -> Result<(Option<Kv>, i64), EtcdError> {
        self.ask().await?;
        self.permit()?;
        let read = {
            let cluster = self.fake.lock();
            (cluster.keys.get(key).cloned(), cluster.revision)
        };
        self.answer().await?;
        Ok(read)
    }

    async fn put_if(
        &self,
        key: &str,
        value: &str,
        lease: LeaseId,
        expect: Expect,
    ) -> Result<Option<i64>, EtcdError> {
        self.ask().await?;
        self.permit()?;
        self.check(lease)?;
        let written = {
            let mut cluster = self.fake.lock();
            let is = cluster.keys.get(key);
            let as_expected = match expect {
                Expect::Absent => is.is_none(),
                Expect::Modified(revision) => is.is_some_and(|kv| kv.modified == revision),
                Expect::Under(lease) => is.is_some_and(|kv| kv.lease == lease.get()),
            };
            as_expected.then(|| {
                cluster.writes.push((Instant::now(), self.who.clone()));
                cluster.put(key, value, lease.get())
            })
        };
        self.fake.tell();
        self.answer().await?;
        Ok(written)
    }

    async fn delete_under(&self, key: &str, lease: LeaseId) -> Result<(), EtcdError> {
        self.ask().await?;
        self.permit()?;
        {
            let mut cluster = self.fake.lock();
            if cluster.keys.get(key).is_some_and(|kv| kv.lease == lease.get()) {
                cluster.delete(key);
            }
        }
        self.fake.tell();
        self.answer().await
    }

    fn watch(&self, key: &str, from: i64) -> FakeWatch {
        let line = Self {
            fake: self.fake.clone(),
            who: String::new(),
            member: self.member,
            epoch: self.epoch,
        };
        FakeWatch { events: self.fake.events(), line, key: key.to_owned(), from }
    }
}

pub(super) struct FakeWatch {
    line: FakeLine,
    events: watch::Receiver<u64>,
    key: String,
    from: i64,
}

impl Watch for FakeWatch {
    async fn next(&mut self) -> Result<KeyChange, EtcdError> {
        loop {
            self.events.borrow_and_update();
            let mode = self.line.mode()?;
            let change = {
                let cluster = self.line.fake.lock();
                let start = cluster.history.partition_point(|(_, c)| c.revision < self.from);
                let news = cluster.history[start..].iter().find(|(key, _)| *key == self.key);
                news.filter(|_| !cluster.deaf).cloned()
            };
            if let (Some((_, change)), Mode::Up) = (change, mode) {
                self.from = change.revision + 1;
                return Ok(change);
            }
            let _ = self.events.changed().await;
        }
    }
}
