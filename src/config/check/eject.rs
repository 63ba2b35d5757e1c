//! Ejection and health checks: what is inherited, and where they cannot stand.

use std::sync::Arc;

use super::note;
use crate::config::{
    eject::{Eject, EndpointHealth},
    problem::Problems,
    raw::{RawEject, RawHealth, RawPolicy, RawRoute},
    settings::Policy,
};

/// The rules of `raw`, where it says nothing those of `base`.
pub(super) fn eject(raw: &RawEject, base: &Eject) -> Arc<Eject> {
    Arc::new(Eject {
        consecutive_local: raw.consecutive_local.get().map_or(base.consecutive_local, |n| n.0),
        consecutive_errors: raw.consecutive_errors.get().map_or(base.consecutive_errors, |n| n.0),
        failure_rate: raw.failure_rate.get().map_or(base.failure_rate, |share| share.0),
        wrong_service: raw.wrong_service.get().copied().unwrap_or(base.wrong_service),
        interval: raw.interval.get().map_or(base.interval, |interval| interval.0),
        base: raw.base.get().map_or(base.base, |base| base.0),
        max: raw.max.get().copied().unwrap_or(base.max),
        max_share: raw.max_share.get().map_or(base.max_share, |share| share.0),
    })
}

/// The checks of `raw`, where it says nothing those of `base`.
pub(super) fn health(raw: &RawHealth, base: &EndpointHealth) -> Arc<EndpointHealth> {
    Arc::new(EndpointHealth {
        kind: raw.kind.get().copied().unwrap_or(base.kind),
        interval: raw.interval.get().map_or(base.interval, |interval| interval.0),
        timeout: raw.timeout.get().map_or(base.timeout, |timeout| timeout.0),
        healthy_after: raw.healthy_after.get().map_or(base.healthy_after, |count| count.0),
        unhealthy_after: raw.unhealthy_after.get().map_or(base.unhealthy_after, |count| count.0),
    })
}

/// Notes an ejection whose longest time is shorter than its first in `policy`, which came of `raw`.
pub(super) fn check(raw: &RawPolicy, policy: &Policy, problems: &mut Problems) {
    let Some(raw) = raw.eject.get() else { return };
    let Eject { base, max, .. } = &*policy.eject;
    if max < base {
        let key = if raw.max.is_absent() { raw.base.span() } else { raw.max.span() };
        let message = "eject.max: is less than `base`; allowed: as much, or more";
        problems.note(key.unwrap_or_default(), message);
    }
}

/// Notes what a route cannot have: an endpoint is well or not, whichever calls it is used for.
pub(super) fn not_of_a_route(raw: &RawRoute, problems: &mut Problems) {
    let why = "is about the endpoints of a service, not about calls; allowed in [defaults] and \
               [service.NAME]";
    note(&raw.policy.eject, format!("route.eject: {why}"), problems);
    note(&raw.policy.health, format!("route.health: {why}"), problems);
}
