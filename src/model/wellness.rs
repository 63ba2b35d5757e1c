//! Whether an endpoint that is registered can take calls, by what is known of it beside its record.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::Load;

/// Why calls leave an endpoint out. Each is said and taken back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sick {
    /// Its calls ended badly.
    Ejected = 1,
    /// It says that it is not well, or does not answer when asked.
    Unhealthy = 2,
    /// A row of failures is complete, and whether it is ejected for that is being decided.
    Accused = 4,
}

/// Why an endpoint was ejected, in the words of metrics and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EjectReason {
    /// It could not be connected, or broke off, several times in a row.
    ConsecutiveLocal,
    /// It answered UNAVAILABLE, INTERNAL or UNKNOWN several times in a row.
    ConsecutiveErrors,
    /// More of its calls failed than of its siblings'.
    FailureRate,
    /// It does not know the gRPC service that its siblings answer for.
    WrongService,
}

impl EjectReason {
    /// All reasons.
    pub const ALL: [Self; 4] =
        [Self::ConsecutiveLocal, Self::ConsecutiveErrors, Self::FailureRate, Self::WrongService];

    /// Value of the metric label `reason`: the key of the rule in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveLocal => "consecutive_local",
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::FailureRate => "failure_rate",
            Self::WrongService => "wrong_service",
        }
    }
}

/// An ejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// By which rule.
    pub reason: EjectReason,
    /// When a call may try the endpoint.
    pub until: Instant,
    /// How many ejections count for its length, itself included.
    pub times: u32,
}

/// Whether one endpoint can take calls. Picks read it; who watches over endpoints writes it.
#[derive(Debug, Default)]
pub(super) struct Wellness {
    sick: AtomicU8,
    trial: AtomicU8,
    told: Mutex<Story>,
}

#[derive(Debug, Default)]
struct Story {
    ejected: Option<Ejection>,
    unhealthy: Option<String>,
}

/// No call may try the endpoint.
const NO_TRIAL: u8 = 0;
/// The next call may.
const OFFERED: u8 = 1;
/// One does.
const TAKEN: u8 = 2;

impl Wellness {
    pub(super) fn is_sick(&self) -> bool {
        self.sick.load(Relaxed) != 0
    }

    pub(super) fn is(&self, sick: Sick) -> bool {
        self.sick.load(Relaxed) & sick as u8 != 0
    }

    /// True where this is new.
    pub(super) fn accuse(&self) -> bool {
        self.set(Sick::Accused)
    }

    /// True where it was accused.
    pub(super) fn acquit(&self) -> bool {
        self.clear(Sick::Accused)
    }

    /// True where this is new.
    pub(super) fn eject(&self, ejection: Ejection) -> bool {
        self.trial.store(NO_TRIAL, Relaxed);
        self.story().ejected = Some(ejection);
        self.set(Sick::Ejected)
    }

    /// True where it was ejected.
    pub(super) fn readmit(&self) -> bool {
        self.trial.store(NO_TRIAL, Relaxed);
        self.story().ejected = None;
        self.clear(Sick::Ejected)
    }

    /// Says that it is not well, and why not; none: that it is. True where that is new.
    pub(super) fn set_unhealthy(&self, why: Option<String>) -> bool {
        let is = why.is_some();
        self.story().unhealthy = why;
        if is { self.set(Sick::Unhealthy) } else { self.clear(Sick::Unhealthy) }
    }

    pub(super) fn ejection(&self) -> Option<Ejection> {
        self.story().ejected.clone()
    }

    pub(super) fn unhealthy(&self) -> Option<String> {
        self.story().unhealthy.clone()
    }

    /// True where that is new.
    pub(super) fn offer_trial(&self) -> bool {
        self.trial.compare_exchange(NO_TRIAL, OFFERED, Relaxed, Relaxed).is_ok()
    }

    pub(super) fn has_trial(&self) -> bool {
        self.trial.load(Relaxed) != NO_TRIAL
    }

    fn set(&self, sick: Sick) -> bool {
        self.sick.fetch_or(sick as u8, Relaxed) & sick as u8 == 0
    }

    fn clear(&self, sick: Sick) -> bool {
        self.sick.fetch_and(!(sick as u8), Relaxed) & sick as u8 != 0
    }

    fn story(&self) -> std::sync::MutexGuard<'_, Story> {
        // Nothing panics while it is locked.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one call that may try an ejected endpoint. Dropped without a word, the next call may.
pub struct Trial(Arc<Load>);

impl Trial {
    /// Takes the trial that is offered, if there is one and nobody else was faster.
    pub fn take(load: &Arc<Load>) -> Option<Self> {
        let trial = &load.wellness().trial;
        if trial.load(Relaxed) != OFFERED {
            return None;
        }
        let taken = trial.compare_exchange(OFFERED, TAKEN, Relaxed, Relaxed);
        taken.is_ok().then(|| Self(Arc::clone(load)))
    }

    /// Says that it has shown how the endpoint is: no other call may try it.
    pub fn is_over(self) {
        let _ = self.0.wellness().trial.compare_exchange(TAKEN, NO_TRIAL, Relaxed, Relaxed);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = self.0.wellness().trial.compare_exchange(TAKEN, OFFERED, Relaxed, Relaxed);
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trial")
    }
}

impl Ejection {
    /// For people, at `now`.
    pub fn told(&self, now: Instant) -> String {
        let Self { reason, until, times } = self;
        let reason = reason.as_str();
        let times = if *times > 1 { format!(", for the {times}. time") } else { String::new() };
        let left = until.saturating_duration_since(now);
        match left.is_zero() {
            true => format!("ejected by {reason}{times}; the next call tries it"),
            false => {
                let left = Duration::from_millis(100 * left.as_millis().div_ceil(100) as u64);
                let left = left.as_secs_f64();
                format!("ejected by {reason}{times}; tried again in {left:.1} s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_may_try_an_ejected_endpoint_until_one_has_told() {
        let load = Arc::<Load>::default();
        assert!(Trial::take(&load).is_none());
        assert!(load.wellness().offer_trial());
        let first = Trial::take(&load).unwrap();
        assert!(Trial::take(&load).is_none());
        assert!(!load.wellness().offer_trial());
        drop(first);
        let second = Trial::take(&load).unwrap();
        second.is_over();
        assert!(Trial::take(&load).is_none() && !load.wellness().has_trial());
        assert!(load.wellness().offer_trial());
    }

    #[test]
    fn an_ejection_says_when_it_will_be_over() {
        let now = Instant::now();
        let until = now + Duration::from_millis(12_340);
        let mut ejection = Ejection { reason: EjectReason::ConsecutiveErrors, until, times: 1 };
        let expected = "ejected by consecutive_errors; tried again in 12.4 s";
        assert_eq!(ejection.told(now), expected);
        ejection.times = 2;
        let expected = "ejected by consecutive_errors, for the 2. time; the next call tries it";
        assert_eq!(ejection.told(until), expected);
    }
}
