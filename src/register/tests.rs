//! Keepers against an etcd of the tests, with the clock paused: hours pass in milliseconds.

mod alone;
mod fake;
mod owners;
mod weather;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::config::{
    Details, EtcdSource, HealthCheck, Probe, Register, Settings, Source, SourceKind,
};

use super::{
    keeper::Keeper,
    report::{Progress, Report, State},
    spec::Spec,
    wish::Wish,
};
use fake::{Fake, FakeStore};

const ADDRESS: &str = "10.0.0.5:9000";
const KEY: &str = "pay/node-1";
/// As in production.
const TTL: Duration = Duration::from_secs(15);
/// Within which a registration is back.
const BACK: Duration = Duration::from_secs(2);

/// A registration of `pay`, at work.
struct One {
    fake: Fake,
    spec: Arc<Spec>,
    wish: watch::Sender<Wish>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

/// What is different in a test.
struct Set<'a> {
    address: &'a str,
    format: &'a str,
    ttl: Duration,
}

impl Default for Set<'_> {
    fn default() -> Self {
        Self { address: ADDRESS, format: "etcd-naming", ttl: TTL }
    }
}

impl One {
    /// One that is healthy.
    fn start(fake: &Fake, set: &Set<'_>) -> Self {
        let etcd = EtcdSource { format: set.format.to_owned(), ..EtcdSource::default() };
        let register = Register {
            name: "pay".into(),
            service: "pay".parse().unwrap(),
            address: set.address.parse().unwrap(),
            source: "main".into(),
            format: None,
            id: "node-1".to_owned(),
            details: Details::default(),
            ttl: set.ttl,
            health: HealthCheck::new(Probe::None),
        };
        let source = Source::new("main", SourceKind::Etcd(etcd));
        let settings = Settings { sources: vec![source], ..Settings::default() };
        let (spec, details) = Spec::new(&register, &settings).unwrap();
        let spec = Arc::new(spec);
        let (wish, wanted) = watch::channel(Wish::new(details, Some(true)));
        let (told, progress) = watch::channel(Progress::default());
        let store = FakeStore::new(fake, set.address);
        let keeper = Keeper::new(Arc::clone(&spec), store, wanted, Arc::new(told));
        let task = tokio::spawn(keeper.run());
        Self { fake: fake.clone(), spec, wish, progress, task }
    }

    fn report(&self) -> Report {
        Report::new(&self.spec, &self.wish.borrow(), &self.progress.borrow())
    }

    fn state(&self) -> State {
        self.report().state
    }

    fn healthy(&self, healthy: bool) {
        self.wish.send_modify(|wish| wish.healthy = Some(healthy));
    }

    fn weigh(&self, weight: u32) {
        self.wish.send_modify(|wish| {
            wish.details.weight = weight;
            wish.generation += 1;
        });
    }

    fn leave(&self) {
        self.wish.send_modify(|wish| wish.leaving = true);
    }

    /// Whether our address is under a key, with a lease.
    fn is_there(&self) -> bool {
        let keys = self.fake.keys();
        let found = keys.iter().filter_map(|key| self.fake.get(key));
        found.filter(|(value, _)| value.contains(self.spec.address())).any(|(_, lease)| lease != 0)
    }

    async fn until(&self, state: State) {
        self.within(TTL + BACK, state).await;
    }

    async fn within(&self, limit: Duration, state: State) {
        let began = Instant::now();
        while self.state() != state {
            assert!(began.elapsed() < limit, "{:?} is not {state:?} in time", self.report());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until `so`, for at most `limit`.
async fn within(limit: Duration, what: &str, so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < limit, "waited for {limit:?} until {what}");
        sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// Looks at `so` for `time`, whenever something has happened in the cluster.
async fn always(fake: &Fake, time: Duration, what: &str, so: impl Fn() -> bool) {
    let (began, mut events) = (Instant::now(), fake.events());
    while began.elapsed() < time {
        assert!(so(), "after {:?} no longer: {what}", began.elapsed());
        let _ = timeout(Duration::from_millis(500), events.changed()).await;
    }
}
