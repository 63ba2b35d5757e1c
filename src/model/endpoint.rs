//! One address of a service, as a registry describes it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::networks::Networks;

use super::{Address, Ejection, History, Latency, Sick, Trial, wellness::Wellness};

/// What a registry format reads out of one value: an endpoint that no source has claimed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where to dial.
    pub address: Address,
    /// The instance's own name; the address where the format has none.
    pub id: String,
    /// Share of traffic relative to its siblings; 0 takes none. Default 100.
    pub weight: u32,
    /// Version of the software, free text; empty when unknown.
    pub version: String,
    /// Failure domain, free text; empty when unknown.
    pub zone: String,
    /// Everything else the record says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Whether the endpoint speaks TLS.
    pub tls: bool,
    /// Name of the format it was written in, such as `etcd-naming`.
    pub format: &'static str,
}

impl Record {
    /// Weight of a record that names none.
    pub const DEFAULT_WEIGHT: u32 = 100;

    /// A record of `format` that says nothing but its address.
    pub fn new(address: Address, format: &'static str) -> Self {
        Self {
            id: address.as_str().to_owned(),
            address,
            weight: Self::DEFAULT_WEIGHT,
            version: String::new(),
            zone: String::new(),
            metadata: BTreeMap::new(),
            tls: false,
            format,
        }
    }

    /// What it says that `copy` does not, such as `version v1`.
    pub fn lost_in(&self, copy: &Self) -> Vec<String> {
        let field = |name: &str, value: &dyn std::fmt::Display, lost: bool| {
            lost.then(|| format!("{name} {value}"))
        };
        let fields = [
            field("weight", &self.weight, self.weight != copy.weight),
            field("version", &self.version, self.version != copy.version),
            field("zone", &self.zone, self.zone != copy.zone),
        ];
        let metadata =
            self.metadata.iter().filter(|(key, value)| copy.metadata.get(*key) != Some(value));
        let metadata = metadata.map(|(key, _)| format!("metadata {key}"));
        fields.into_iter().flatten().chain(metadata).collect()
    }

    /// State by the record alone.
    pub fn state(&self) -> State {
        if self.metadata.get("state").is_some_and(|state| state == "forbidden") {
            State::Forbidden
        } else if self.weight == 0 {
            State::Drained
        } else {
            State::Ready
        }
    }
}

/// One endpoint of a service. Immutable, but for the counters in [`Load`], which outlive changes of
/// the record as long as the address stays in the service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What the registry says; shared with the table it was read into.
    pub record: Arc<Record>,
    /// Name of the source that it was learned from.
    pub source: Arc<str>,
    /// Registry key, or the file's path and entry.
    pub key: Arc<str>,
    /// Live counters of this address in this service.
    pub load: Arc<Load>,
    /// Where endpoints of its source may be: what a host name stands for is known at each dial only.
    pub networks: Arc<Networks>,
}

/// Whether an endpoint may be picked, in the words of `GET /services/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// May be picked.
    Ready,
    /// Metadata `state=forbidden`: picked only when pinned.
    Forbidden,
    /// Weight 0: picked only when pinned, or when every weight left is 0.
    Drained,
    /// Vanished from the registry together with most of the service, and kept for a while: picked
    /// like the others once it has answered, before that only when nothing else is left.
    Suspect,
    /// Left out for a while because of how its calls ended.
    Ejected,
    /// Left out because it says that it is not well, or does not answer when asked.
    Unhealthy,
}

impl State {
    /// All states, in the order reports show them.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Forbidden,
        Self::Drained,
        Self::Suspect,
        Self::Ejected,
        Self::Unhealthy,
    ];

    /// Lower-case name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Forbidden => "forbidden",
            Self::Drained => "drained",
            Self::Suspect => "suspect",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Endpoint {
    /// State by its record, by how it is, and by whether it is still registered.
    pub fn state(&self) -> State {
        match self.record.state() {
            State::Ready if self.load.is(Sick::Ejected) => State::Ejected,
            State::Ready if self.load.is(Sick::Unhealthy) => State::Unhealthy,
            State::Ready if self.load.is_suspect() => State::Suspect,
            state => state,
        }
    }

    /// Why calls leave it out at `now`, for people; none where its state says it all.
    pub fn ailment(&self, now: Instant) -> Option<String> {
        let ejected = self.load.ejection().map(|ejection| ejection.told(now));
        let unhealthy = || self.load.wellness().unhealthy().map(|why| format!("unhealthy: {why}"));
        let accused = || self.load.is(Sick::Accused).then(|| "about to be ejected".to_owned());
        ejected.or_else(unhealthy).or_else(accused)
    }

    /// Value of a selector key: `version`, `zone`, `id`, `source`, `format`, else metadata.
    pub fn label(&self, key: &str) -> Option<&str> {
        let known = match key {
            "version" => &self.record.version,
            "zone" => &self.record.zone,
            "id" => &self.record.id,
            "source" => return Some(&self.source),
            "format" => return Some(self.record.format),
            _ => return self.record.metadata.get(key).map(String::as_str),
        };
        if known.is_empty() {
            self.record.metadata.get(key).map(String::as_str)
        } else {
            Some(known)
        }
    }
}

/// Live counters of one address of one service, shared by all workers.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    picks: AtomicU64,
    latency: Latency,
    /// Milliseconds, from 1; 0 for never.
    joined: AtomicU64,
    history: History,
    wellness: Wellness,
    gone: AtomicBool,
    /// Failures to connect in a row, in the lowest byte; above it, when the first of them was.
    failures: AtomicU64,
    standing: AtomicU8,
}

/// What milliseconds are counted from. Tests say that an address joined before.
static START: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
});

/// How an address stands in its registry.
const REGISTERED: u8 = 0;
/// No longer registered, and not dialled since.
const SUSPECT: u8 = 1;
/// No longer registered, but it answers.
const ANSWERS: u8 = 2;

/// Failures to connect in a row, within [`DOUBT_WITHIN`], that make a registration doubtful.
const DOUBT_AFTER: u64 = 5;
const DOUBT_WITHIN: Duration = Duration::from_secs(30);

impl Load {
    /// Of an address that joined a service that was known already.
    pub fn joined_at(now: Instant) -> Self {
        let load = Self::default();
        load.join(now);
        load
    }

    /// When the address joined the service, or was well again; none where the first list of the service
    /// had it.
    pub fn joined(&self) -> Option<Instant> {
        match self.joined.load(Relaxed) {
            0 => None,
            millis => Some(*START + Duration::from_millis(millis - 1)),
        }
    }

    fn join(&self, now: Instant) {
        let since = now.saturating_duration_since(*START).as_millis() as u64;
        self.joined.store(since + 1, Relaxed);
    }

    /// Whether it can take calls, as far as is known: picks leave it out otherwise, unless too few
    /// endpoints can.
    pub fn is_usable(&self) -> bool {
        !self.is_sick() && !self.is_doubtful()
    }

    /// Whether picks are to leave it out for how it is.
    pub fn is_sick(&self) -> bool {
        self.wellness.is_sick()
    }

    /// Whether this is one of the reasons.
    pub fn is(&self, sick: Sick) -> bool {
        self.wellness.is(sick)
    }

    /// The ejection, while it is ejected.
    pub fn ejection(&self) -> Option<Ejection> {
        self.wellness.ejection()
    }

    /// Whether a call may try it, or does.
    pub fn has_trial(&self) -> bool {
        self.wellness.has_trial()
    }

    /// What its calls have told of it.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// [`super::Service`] writes it, and tells the workers.
    pub(super) const fn wellness(&self) -> &Wellness {
        &self.wellness
    }

    /// True where that is new.
    pub(super) fn set_unhealthy(&self, why: Option<String>, now: Instant) -> bool {
        let is_well = why.is_none();
        let changed = self.wellness.set_unhealthy(why);
        if changed && is_well {
            self.join(now);
        }
        changed
    }

    /// Takes it back after an ejection: what came before is forgotten, and it is as new.
    pub(super) fn readmit(&self, now: Instant) -> bool {
        let readmitted = self.wellness.readmit();
        if readmitted {
            self.history.begin_rows();
            self.join(now);
        }
        readmitted
    }

    /// How long it takes to answer.
    pub const fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Calls that hold this endpoint now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Times it was picked since it joined the service.
    pub fn picks(&self) -> u64 {
        self.picks.load(Relaxed)
    }

    /// Counts a pick, until the returned guard is dropped.
    pub fn pick(self: &Arc<Self>) -> InFlight {
        self.picks.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight { load: Arc::clone(self), tally: None, trial: None }
    }

    /// Counts a failure to connect. True for each fifth in a row within 30 s: then whoever registered
    /// the address may have forgotten to say that it is gone.
    pub fn connect_failed(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(*START).as_millis() as u64;
        let next = |before: u64| {
            let (since, count) = (before >> 8, (before & 0xff) + 1);
            let in_a_row = count > 1 && now.saturating_sub(since) < DOUBT_WITHIN.as_millis() as u64;
            match (in_a_row, count) {
                (false, _) => now << 8 | 1,
                (true, DOUBT_AFTER) => 0,
                (true, count) => since << 8 | count,
            }
        };
        let before = self.failures.fetch_update(Relaxed, Relaxed, |before| Some(next(before)));
        before.is_ok_and(|before| next(before) == 0)
    }

    /// Counts that it was connected. One look, where it had not failed before.
    pub fn connected(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Whether it is no longer registered, and kept all the same.
    pub fn is_suspect(&self) -> bool {
        self.standing.load(Relaxed) != REGISTERED
    }

    /// Whether it is a suspect that nobody has connected since: to be picked only when nothing else is
    /// left.
    pub fn is_doubtful(&self) -> bool {
        self.standing.load(Relaxed) == SUSPECT
    }

    /// Says that the address is no longer registered, but stays for now. Discovery calls this.
    pub fn suspect(&self) {
        self.standing.store(SUSPECT, Relaxed);
        self.gone.store(false, Relaxed);
    }

    /// Says that a suspect answers. Discovery calls this.
    pub fn vouch(&self) {
        self.standing.store(ANSWERS, Relaxed);
    }

    /// Says that it could not be connected. True where it was a suspect that had answered before: now
    /// nobody knows, and somebody should find out.
    pub fn doubt(&self) -> bool {
        self.standing.compare_exchange(ANSWERS, SUSPECT, Relaxed, Relaxed).is_ok()
    }

    /// Says that the address is registered. Discovery calls this.
    pub fn trust(&self) {
        self.standing.store(REGISTERED, Relaxed);
    }

    /// Whether it may hold one more call, where it may hold `most`; 0 allows any number.
    pub fn has_room(&self, most: u32) -> bool {
        most == 0 || self.in_flight() < most
    }

    /// Counts a pick, as [`Self::pick`] does, unless there are `most` calls already; 0 allows any
    /// number. However many workers pick at once, there are never more.
    pub fn try_pick(self: &Arc<Self>, most: u32) -> Option<InFlight> {
        self.try_pick_with(most, None, None)
    }

    /// The same, in `tally` too, and with the endpoint's trial, if the call has it.
    pub fn try_pick_with(
        self: &Arc<Self>,
        most: u32,
        tally: Option<Arc<Tally>>,
        trial: Option<Trial>,
    ) -> Option<InFlight> {
        let one_more = |now: u32| (now < most).then_some(now + 1);
        if most == 0 {
            self.in_flight.fetch_add(1, Relaxed);
        } else {
            self.in_flight.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        }
        self.picks.fetch_add(1, Relaxed);
        if let Some(tally) = &tally {
            tally.0.fetch_add(1, Relaxed);
        }
        Some(InFlight { load: Arc::clone(self), tally, trial })
    }

    /// Whether the address has left the service: its pooled connections end with their last call.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Says that the address has left the service. Discovery calls this.
    pub fn leave(&self) {
        self.gone.store(true, Relaxed);
    }
}

/// Calls in flight on several endpoints together.
#[derive(Debug, Default)]
pub struct Tally(AtomicU32);

impl Tally {
    /// How many there are now.
    pub fn calls(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// One call in flight on an endpoint; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    tally: Option<Arc<Tally>>,
    trial: Option<Trial>,
}

impl InFlight {
    /// The trial of the endpoint, if it is this call that tries it. Whoever takes it says what has
    /// come of it.
    pub const fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Relaxed);
        if let Some(tally) = &self.tally {
            tally.0.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fifth_failure_to_connect_in_a_row_makes_an_address_doubtful() {
        let (load, start) = (Load::default(), Instant::now());
        let fail = |after| load.connect_failed(start + Duration::from_secs(after));
        let rows: Vec<_> = (0..10).map(fail).collect();
        let doubtful = [false, false, false, false, true];
        assert_eq!(rows, [doubtful, doubtful].concat());
        (10..14).for_each(|at| assert!(!fail(at)));
        load.connected();
        assert!(!fail(14), "the row was broken");
    }

    #[test]
    fn failures_that_are_far_apart_are_no_row() {
        let (load, start) = (Load::default(), Instant::now());
        for after in (0..100).map(|n| n * 8) {
            assert!(!load.connect_failed(start + Duration::from_secs(after)), "{after}");
        }
    }
}
