//! Further attempts: what is inherited, and which key means nothing without another.

use std::time::Duration;

use super::note;
use crate::config::{
    problem::Problems,
    raw::{RawPolicy, RawRetry},
    retry::Retry,
    settings::Policy,
    table::Key,
};

/// What `raw` says of further attempts, where it says nothing what `base` does.
pub(super) fn retry(raw: &RawRetry, base: &Retry) -> Retry {
    let time = |key: &Key<Duration>, base: Duration| key.get().copied().unwrap_or(base);
    let or_none = |key: &Key<Duration>, base: Option<Duration>| match key.get() {
        Some(time) => Some(*time).filter(|time| !time.is_zero()),
        None => base,
    };
    let methods = raw.hedge_methods.get();
    Retry {
        on: raw.on.get().map_or(base.on, |codes| codes.iter().collect()),
        per_try_timeout: or_none(&raw.per_try_timeout, base.per_try_timeout),
        backoff: time(&raw.backoff, base.backoff),
        backoff_max: time(&raw.backoff_max, base.backoff_max),
        budget: raw.budget.get().map_or(base.budget, |share| share.0),
        budget_min_per_second: raw
            .budget_min_per_second
            .get()
            .map_or(base.budget_min_per_second, |count| count.0),
        hedge_after: or_none(&raw.hedge_after, base.hedge_after),
        hedge_methods: methods.map_or_else(
            || base.hedge_methods.clone(),
            |methods| methods.iter().map(|method| method.as_ref().to_owned()).collect(),
        ),
    }
}

/// Notes what contradicts itself in `policy`, which came of `raw`.
pub(super) fn check(raw: &RawPolicy, policy: &Policy, problems: &mut Problems) {
    let (Some(raw), Policy { retry, attempts, .. }) = (raw.retry.get(), policy) else { return };
    let hedges = retry.hedge_after.is_some();
    if hedges && retry.hedge_methods.is_empty() {
        note(&raw.hedge_after, "retry.hedge_after: needs `hedge_methods` beside it", problems);
    }
    if !hedges && !retry.hedge_methods.is_empty() {
        note(&raw.hedge_methods, "retry.hedge_methods: needs `hedge_after` beside it", problems);
    }
    if retry.backoff > retry.backoff_max {
        let key = if raw.backoff.get().is_some() { &raw.backoff } else { &raw.backoff_max };
        note(key, "retry.backoff: is longer than `backoff_max`", problems);
    }
    if !retry.on.is_empty() && *attempts < 2 {
        note(&raw.on, "retry.on: needs `attempts` of at least 2 beside it", problems);
    }
}
