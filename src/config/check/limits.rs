//! Limits: what is inherited, and which key means nothing without another.

use std::sync::Arc;

use super::note;
use crate::config::{
    limits::{Limits, RateBy},
    problem::Problems,
    raw::{RawLimits, RawPolicy},
    settings::Policy,
};

/// The limits of `raw`, where it says nothing those of `base`. None where nothing is limited.
pub(super) fn limits(raw: &RawLimits, base: Option<&Limits>) -> Option<Arc<Limits>> {
    let none = Limits::default();
    let base = base.unwrap_or(&none);
    let limits = Limits {
        max_in_flight: raw.max_in_flight.get().map_or(base.max_in_flight, |count| count.0),
        max_in_flight_per_endpoint: raw
            .max_in_flight_per_endpoint
            .get()
            .map_or(base.max_in_flight_per_endpoint, |count| count.0),
        rate: raw.rate.get().map_or(base.rate, |count| count.0),
        burst: raw.burst.get().map_or(base.burst, |count| count.0),
        rate_by: raw.rate_by.get().unwrap_or(&base.rate_by).clone(),
        adaptive: raw.adaptive.get().copied().unwrap_or(base.adaptive),
    };
    (!limits.is_none()).then(|| Arc::new(limits))
}

/// Notes what says something of a rate where `policy`, which came of `raw`, has none.
pub(super) fn check(raw: &RawPolicy, policy: &Policy, problems: &mut Problems) {
    let Some(raw) = raw.limits.get() else { return };
    if policy.limits.as_ref().is_some_and(|limits| limits.rate > 0) {
        return;
    }
    if raw.burst.get().is_some_and(|burst| burst.0 > 0) {
        note(&raw.burst, "limits.burst: needs `rate` beside it", problems);
    }
    if raw.rate_by.get().is_some_and(|by| *by != RateBy::Service) {
        note(&raw.rate_by, "limits.rate_by: needs `rate` beside it", problems);
    }
}
