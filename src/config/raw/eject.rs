//! The keys of [defaults.eject] and [defaults.health].

use std::time::Duration;

use crate::config::{
    eject::HealthKind,
    table::table,
    text::Positive,
    value::{Count, Share},
};

table! {
    /// When an endpoint is ejected: left out of the choice for a while because of how its calls ended.
    /// When the time is over one call tries it. It is of a service, so no [[route]] has it.
    struct RawEject {
        /// Times in a row that an endpoint could not be connected, or broke off; 0 for never.
        consecutive_local: Count<0, 10_000>,
        /// UNAVAILABLE, INTERNAL or UNKNOWN in a row that an endpoint answers; 0 for never.
        consecutive_errors: Count<0, 10_000>,
        /// An endpoint is ejected when its share of failed calls is larger than that of its siblings by
        /// about as much as this, and not by chance: 0.05 for five of a hundred; 0.0 for never.
        failure_rate: Share,
        /// Whether an endpoint is ejected that does not know a gRPC service which its siblings answer
        /// for: its address may have gone to another service.
        wrong_service: bool,
        /// Time in which the siblings' share of failed calls is forgotten, and after which one
        /// ejection less counts for the length of the next.
        interval: Positive,
        /// Length of an ejection, times the number of those before it that count, and itself.
        base: Positive,
        /// Length of the longest ejection.
        max: Duration,
        /// Share of a service's endpoints that may be ejected at a time; one always may, if another one
        /// can take calls. 0.0 for none.
        max_share: Share,
    }
}

table! {
    /// How endpoints are asked whether they are well, while their service is called. It is of a
    /// service, so no [[route]] has it.
    struct RawHealth {
        /// "grpc": grpc.health.v1.Health/Check says SERVING of the server as a whole. "tcp": it takes a
        /// connection. "none": nothing is asked.
        kind: HealthKind,
        /// Between two checks of one endpoint; 10 % more or less.
        interval: Positive,
        /// Longest time that a check may take.
        timeout: Positive,
        /// Checks in a row that must succeed before an endpoint that was unhealthy is used again.
        healthy_after: Count<1, 1000>,
        /// Checks in a row that must fail before an endpoint is not used any more.
        unhealthy_after: Count<1, 1000>,
    }
}
