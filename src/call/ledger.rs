//! Where the time of a call went.
//!
//! The stages of the path note moments; whoever reports works out what was spent between them. A moment
//! is noted only where the call has waited, so a call on a connection that is there costs one look at
//! the clock more than without: when its answer begins.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::CallMeta;
use crate::{
    metrics::AttemptOutcome,
    model::{Endpoint, GrpcStatus},
};

/// Attempts that a text tells of, the last ones: it goes into a header.
const MOST_SHOWN: usize = 8;

/// The moments of one call, in the order in which they came.
#[derive(Debug, Default)]
pub struct Ledger {
    /// When its service was known, where that had to be asked for.
    resolved: Cell<Option<Instant>>,
    /// When a fault that holds calls up let it go on.
    held: Cell<Option<Instant>>,
    /// One for each endpoint of [`CallMeta::tried`].
    attempts: RefCell<SmallVec<[Moments; 1]>>,
    /// Index of the one that moments are noted for.
    current: Cell<usize>,
}

/// The moments of one attempt.
#[derive(Clone, Copy, Debug)]
struct Moments {
    began: Instant,
    /// Whether a connection had to be waited for,
    dials: bool,
    /// and when it was there.
    connected: Option<Instant>,
    /// When the head of the answer came.
    answered: Option<Instant>,
    /// When it failed, and how,
    failed: Option<(Instant, AttemptOutcome)>,
    /// and with which status, where it was answered by one.
    status: Option<GrpcStatus>,
}

/// What a call has spent, up to one moment. The parts add up to the whole, but for attempts that ran
/// side by side.
#[derive(Clone, Debug)]
pub struct Spent {
    /// From the arrival of the head to that moment.
    pub total: Duration,
    /// Waiting for discovery to know the service.
    pub resolve: Duration,
    /// Held up by the fault of a route.
    pub fault: Duration,
    /// Each attempt, in order.
    pub attempts: Vec<Attempt>,
}

/// What one attempt has spent.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// On which endpoint.
    pub endpoint: Arc<Endpoint>,
    /// How it ended; none while it goes on.
    pub outcome: Option<AttemptOutcome>,
    /// The status that was all of its answer, where that could be tried again.
    pub status: Option<GrpcStatus>,
    /// Between the attempt before, or all that came before the first, and this one.
    pub pause: Duration,
    /// Waiting for a connection.
    pub connect: Duration,
    /// From the connection to the head of the answer, or to the end where none came. None where there
    /// was no connection.
    pub first_byte: Option<Duration>,
    /// From the head of the answer to the end.
    pub body: Option<Duration>,
}

impl Ledger {
    /// The service is known, after a wait.
    pub fn resolved(&self, now: Instant) {
        self.resolved.set(Some(now));
    }

    /// When the service was known, where the call has waited for that.
    pub const fn resolved_at(&self) -> Option<Instant> {
        self.resolved.get()
    }

    /// A fault that held the call up lets it go on.
    pub fn held_up(&self, now: Instant) {
        self.held.set(Some(now));
    }

    /// The first attempt begins, at once after whatever came before.
    pub fn first_attempt(&self, arrived: Instant) {
        self.attempt(self.held.get().or_else(|| self.resolved.get()).unwrap_or(arrived));
    }

    /// An attempt begins.
    pub fn attempt(&self, now: Instant) {
        let mut attempts = self.attempts.borrow_mut();
        self.current.set(attempts.len());
        attempts.push(Moments {
            began: now,
            dials: false,
            connected: None,
            answered: None,
            failed: None,
            status: None,
        });
    }

    /// Index of the attempt that moments are noted for: the newest, but where several run side by side.
    pub const fn current(&self) -> usize {
        self.current.get()
    }

    /// Notes moments for an attempt that began earlier from now on.
    pub fn go_on_with(&self, attempt: usize) {
        self.current.set(attempt);
    }

    /// The attempt waits for a connection.
    pub fn dials(&self) {
        if let Some(moments) = self.attempts.borrow_mut().get_mut(self.current()) {
            moments.dials = true;
        }
    }

    /// The attempt has its connection, after a wait. How long that was.
    pub fn connected(&self, now: Instant) -> Duration {
        let mut attempts = self.attempts.borrow_mut();
        let Some(moments) = attempts.get_mut(self.current()) else { return Duration::ZERO };
        moments.connected = Some(now);
        now.saturating_duration_since(moments.began)
    }

    /// The head of its answer is here.
    pub fn answered(&self, now: Instant) {
        if let Some(moments) = self.attempts.borrow_mut().get_mut(self.current()) {
            moments.answered = Some(now);
        }
    }

    /// When the head of the answer came.
    pub fn answered_at(&self) -> Option<Instant> {
        self.attempts.borrow().get(self.current()).and_then(|moments| moments.answered)
    }

    /// The attempt has failed.
    pub fn failed(&self, now: Instant, outcome: AttemptOutcome) {
        if let Some(moments) = self.attempts.borrow_mut().get_mut(self.current()) {
            moments.failed = Some((now, outcome));
        }
    }

    /// The attempt that has failed was answered by nothing but this status.
    pub fn rejected(&self, status: GrpcStatus) {
        if let Some(moments) = self.attempts.borrow_mut().get_mut(self.current()) {
            moments.status = Some(status);
        }
    }
}

impl Spent {
    /// What `call` has spent until `now`; `outcome` is that of its last attempt, if it is over.
    pub fn new(call: &CallMeta, now: Instant, outcome: Option<AttemptOutcome>) -> Self {
        let Ledger { resolved, held, attempts, .. } = &call.ledger;
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let mut last = call.arrived;
        let mut part = |until: Option<Instant>| match until {
            Some(until) => since(std::mem::replace(&mut last, until), until),
            None => Duration::ZERO,
        };
        let (resolve, fault) = (part(resolved.get()), part(held.get()));
        let (attempts, tried) = (attempts.borrow(), call.tried.borrow());
        let attempts = attempts.iter().zip(tried.iter()).map(|(moments, endpoint)| {
            let Moments { began, dials, connected, answered, failed, status } = *moments;
            let end = failed.map_or(now, |(end, _)| end);
            let pause = part(Some(began));
            let connect = part(dials.then_some(connected.unwrap_or(end)));
            let was_connected = !dials || connected.is_some();
            let first_byte = was_connected.then(|| part(Some(answered.unwrap_or(end))));
            let body = answered.map(|_| part(Some(end)));
            let outcome = failed.map(|(_, outcome)| outcome).or(outcome);
            let endpoint = Arc::clone(endpoint);
            Attempt { endpoint, outcome, status, pause, connect, first_byte, body }
        });
        Self { attempts: attempts.collect(), total: since(call.arrived, now), resolve, fault }
    }

    /// For programs: milliseconds, to the microsecond. What took no time, or never began, is left out;
    /// of the attempts, the last `most` are told.
    pub fn to_json(&self, most: usize) -> Value {
        let before = self.attempts.len().saturating_sub(most);
        let attempts = self.attempts[before..].iter().map(|attempt| {
            let Attempt { endpoint, outcome, status, .. } = attempt;
            let mut entry = json!({ "endpoint": endpoint.record.address.as_str() });
            entry["outcome"] = outcome.map(AttemptOutcome::as_str).into();
            if let Some(status) = status {
                entry["grpc_status"] = status.name().into();
            }
            for (name, part) in attempt.parts() {
                entry[format!("{name}_ms")] = millis(part).into();
            }
            entry
        });
        let mut spent = json!({ "attempts": attempts.collect::<Vec<_>>() });
        if before > 0 {
            spent["attempts_before"] = before.into();
        }
        for (name, part) in self.parts() {
            spent[format!("{name}_ms")] = millis(part).into();
        }
        spent
    }

    /// Parts before the first attempt.
    fn parts(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let parts = [("resolve", self.resolve), ("fault", self.fault)];
        parts.into_iter().filter(|(_, part)| !part.is_zero())
    }
}

impl Attempt {
    fn parts(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let some = |part: Duration| (!part.is_zero()).then_some(part);
        let parts = [
            ("pause", some(self.pause)),
            ("connect", some(self.connect)),
            ("first_byte", self.first_byte),
            ("body", self.body),
        ];
        parts.into_iter().filter_map(|(name, part)| part.map(|part| (name, part)))
    }
}

/// For people, on one line: `resolve=0.8ms; 10.0.0.7:80 connect_failed connect=0.3ms; 10.0.0.8:80 ok
/// connect=0.4ms first_byte=2.1ms`.
impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, part) in self.parts() {
            write!(f, "{separator}{name}={}ms", millis(part))?;
            separator = "; ";
        }
        let before = self.attempts.len().saturating_sub(MOST_SHOWN);
        if before > 0 {
            write!(f, "{separator}{before} attempts before")?;
            separator = "; ";
        }
        for attempt in &self.attempts[before..] {
            write!(f, "{separator}{}", attempt.endpoint.record.address)?;
            match (attempt.status, attempt.outcome) {
                (Some(status), _) => write!(f, " {}", status.name())?,
                (None, Some(outcome)) => write!(f, " {}", outcome.as_str())?,
                (None, None) => {}
            }
            for (name, part) in attempt.parts() {
                write!(f, " {name}={}ms", millis(part))?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// Milliseconds, to the microsecond.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
