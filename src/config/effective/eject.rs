//! Ejection and health checks, written back.

use crate::config::{
    eject::{Eject, EndpointHealth},
    raw::{RawEject, RawHealth},
    text::Positive,
    value::{Count, Share},
};

impl From<&Eject> for RawEject {
    fn from(eject: &Eject) -> Self {
        Self {
            consecutive_local: Count(eject.consecutive_local).into(),
            consecutive_errors: Count(eject.consecutive_errors).into(),
            failure_rate: Share(eject.failure_rate).into(),
            wrong_service: eject.wrong_service.into(),
            interval: Positive(eject.interval).into(),
            base: Positive(eject.base).into(),
            max: eject.max.into(),
            max_share: Share(eject.max_share).into(),
        }
    }
}

impl From<&EndpointHealth> for RawHealth {
    fn from(health: &EndpointHealth) -> Self {
        Self {
            kind: health.kind.into(),
            interval: Positive(health.interval).into(),
            timeout: Positive(health.timeout).into(),
            healthy_after: Count(health.healthy_after).into(),
            unhealthy_after: Count(health.unhealthy_after).into(),
        }
    }
}
