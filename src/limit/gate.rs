//! Decides whether a call of one service is let through.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::Instant;

use super::{
    Counter, Permit,
    adaptive::{Adaptive, Place},
    bucket::{Bucket, Buckets, Rate},
};
use crate::config::{Limits, RateBy};

/// What lets the calls of one service through, by one set of limits. Shared by all workers.
#[derive(Debug)]
pub struct Gate {
    route: Option<Arc<str>>,
    limits: Arc<Limits>,
    counts: Arc<Counts>,
    rate: Option<Kept>,
}

/// What is counted of a service, by whichever limits: it outlives a change of them.
#[derive(Debug)]
struct Counts {
    /// What its clock counts from.
    began: Instant,
    in_flight: Counter,
    adaptive: OnceLock<Adaptive>,
}

/// A rate, and the buckets it is kept by.
#[derive(Debug)]
struct Kept {
    rate: Rate,
    by: By,
}

#[derive(Debug)]
enum By {
    Service(Bucket),
    Method(Buckets),
    Header(http::HeaderName, Buckets),
}

/// A call at the gate.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// When it came; also the clock of the rate, so that none is read here.
    pub arrived: Instant,
    /// Its `:path`.
    pub path: &'a str,
    /// Its headers, as far as they are the application's.
    pub headers: &'a HeaderMap,
}

/// The places of a call that is let through; it has them until it drops them.
#[derive(Debug, Default)]
pub struct Passed {
    /// Until its last byte.
    pub in_flight: Option<Permit>,
    /// Until its answer begins.
    pub waiting: Option<Waiting>,
}

/// A place among the calls that wait for their answer.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    since: Instant,
    place: Place,
}

/// A limit that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max_in_flight`.
    InFlight,
    /// `max_in_flight_per_endpoint`, on each endpoint that the call may use.
    PerEndpoint,
    /// `rate`.
    Rate,
    /// The number that `adaptive` allows now.
    Adaptive,
}

/// A call that is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit has been reached.
    pub limit: Limit,
    /// How much it allows.
    pub allowed: u32,
    /// When there will be a token, where that is known.
    pub wait: Option<Duration>,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 4] = [Self::InFlight, Self::PerEndpoint, Self::Rate, Self::Adaptive];

    /// Name in metrics: the key in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "max_in_flight",
            Self::PerEndpoint => "max_in_flight_per_endpoint",
            Self::Rate => "rate",
            Self::Adaptive => "adaptive",
        }
    }
}

impl Gate {
    pub(super) fn new(route: Option<Arc<str>>, limits: Arc<Limits>) -> Self {
        Self::counting(route, limits, Arc::default())
    }

    fn counting(route: Option<Arc<str>>, limits: Arc<Limits>, counts: Arc<Counts>) -> Self {
        let rate = (limits.rate > 0).then(|| Kept {
            rate: Rate::new(limits.rate, limits.burst()),
            by: match &limits.rate_by {
                RateBy::Service => By::Service(Bucket::default()),
                RateBy::Method => By::Method(Buckets::new()),
                RateBy::Header(name) => By::Header(name.clone(), Buckets::new()),
            },
        });
        Self { route, limits, counts, rate }
    }

    /// Other limits for the same calls, with what is counted of them.
    pub(super) fn with(&self, limits: Arc<Limits>) -> Self {
        Self::counting(self.route.clone(), limits, Arc::clone(&self.counts))
    }

    /// Name of the route whose calls it counts; empty where they are those of a service.
    pub fn route(&self) -> &str {
        self.route.as_deref().unwrap_or_default()
    }

    /// The limits that it keeps.
    pub const fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Lets a call through, or does not; it never waits.
    ///
    /// # Errors
    /// [`Refusal`], with the first limit that has been reached. A call that is refused takes no token
    /// and no place.
    pub fn enter(self: &Arc<Self>, asked: Asked<'_>) -> Result<Passed, Refusal> {
        let refuse = |limit, allowed| Refusal { limit, allowed, wait: None };
        let mut passed = Passed::default();
        let most = self.limits.max_in_flight;
        if most > 0 {
            let place = self.counts.in_flight.enter(most);
            passed.in_flight = Some(place.ok_or_else(|| refuse(Limit::InFlight, most))?);
        }
        if self.limits.adaptive {
            let adaptive = self.adaptive();
            let place = adaptive.enter();
            let place = place.ok_or_else(|| refuse(Limit::Adaptive, adaptive.limit()))?;
            let waiting = Waiting { gate: Arc::clone(self), since: asked.arrived, place };
            passed.waiting = Some(waiting);
        }
        if let Some(kept) = &self.rate {
            kept.take(asked, self.counts.time(asked.arrived)).map_err(|wait| Refusal {
                wait: Some(wait),
                ..refuse(Limit::Rate, self.limits.rate)
            })?;
        }
        Ok(passed)
    }

    /// Calls that may wait for their answer now, where that is adaptive.
    pub fn adaptive_limit(&self) -> Option<u32> {
        self.limits.adaptive.then(|| self.adaptive().limit())
    }

    fn adaptive(&self) -> &Adaptive {
        self.counts.adaptive.get_or_init(Adaptive::new)
    }
}

impl Counts {
    /// Nanoseconds of the service's clock, which begins at one second: 0 is before anything happened.
    fn time(&self, at: Instant) -> u64 {
        const BEGAN: u64 = 1_000_000_000;
        let since = at.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX / 2) + BEGAN
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self { began: Instant::now(), in_flight: Counter::default(), adaptive: OnceLock::new() }
    }
}

impl Kept {
    fn take(&self, asked: Asked<'_>, now: u64) -> Result<(), Duration> {
        let bucket = match &self.by {
            By::Service(bucket) => bucket,
            By::Method(buckets) => buckets.of(asked.path.as_bytes(), now),
            By::Header(name, buckets) => {
                let value = asked.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
                buckets.of(value, now)
            }
        };
        bucket.take(self.rate, now)
    }
}

impl Waiting {
    /// The answer has begun at `now`. The new limit, if it changed, and whose it is.
    pub fn answered(&self, now: Instant) -> Option<(u32, &str)> {
        let gate = &self.gate;
        let (time, took) = (gate.counts.time(now), now - self.since);
        let limit = gate.adaptive().answered(&self.place, time, took)?;
        Some((limit, gate.route()))
    }

    /// The call was given up at `now`. The new limit, if it changed, and whose it is.
    pub fn given_up(&self, now: Instant) -> Option<(u32, &str)> {
        let gate = &self.gate;
        let (time, took) = (gate.counts.time(now), now - self.since);
        let limit = gate.adaptive().given_up(&self.place, time, took)?;
        Some((limit, gate.route()))
    }
}
