//! Whether an answer is one to be tried again after.

use std::fmt;

use http::StatusCode;

use crate::{
    call::Reply,
    config::Retry,
    model::{GrpcStatus, Statuses},
    retry::{PUSHBACK, Pushback},
};

/// An answer that is nothing but a status after which the policy has another attempt.
pub(super) struct Failure {
    pub(super) status: GrpcStatus,
    pub(super) pushback: Option<Pushback>,
}

/// Why there is another attempt: the `reason` of the metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// The one before was answered with this.
    Status(GrpcStatus),
    /// It broke off, which the caller would see as this.
    Lost(GrpcStatus),
    /// It took longer than `per_try_timeout`.
    TimedOut,
    /// None was answered within `hedge_after`.
    Hedge,
}

/// Why there is none, where the policy would have had one: the `reason` of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// Whoever calls tries again already.
    PreviousAttempt,
    /// What has been sent of the call is not there any more, or the answer has begun.
    Committed,
    /// The endpoint has asked for it.
    Pushback,
    /// The deadline leaves no time.
    Deadline,
    /// The call has tried all endpoints.
    NoEndpoint,
    /// The budget is used up.
    Budget,
}

impl Skip {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PreviousAttempt => "previous_attempt",
            Self::Committed => "committed",
            Self::Pushback => "pushback",
            Self::Deadline => "deadline",
            Self::NoEndpoint => "no_endpoint",
            Self::Budget => "budget",
        }
    }
}

impl Failure {
    /// None where the answer is the caller's: it has a message, or another status.
    pub(super) fn of(reply: &mut Reply, retry: &Retry) -> Option<Self> {
        let (status, pushback) = if let Some(trailers) = reply.exchange.ending() {
            (GrpcStatus::of(trailers), Pushback::of(trailers))
        } else if reply.head.status != StatusCode::OK {
            let of_http = Statuses::of_http(reply.head.status.as_u16()).grpc;
            (
                GrpcStatus::of(&reply.head.headers).or(Some(of_http)),
                Pushback::of(&reply.head.headers),
            )
        } else if reply.exchange.is_over() {
            (GrpcStatus::of(&reply.head.headers), Pushback::of(&reply.head.headers))
        } else {
            return None;
        };
        let status = status.unwrap_or(GrpcStatus::UNKNOWN);
        retry.on.contains(status).then_some(Self { status, pushback })
    }
}

/// Tells the caller not to try again.
pub(super) fn push_back(reply: &mut Reply) {
    let headers = match reply.exchange.ending() {
        Some(trailers) => trailers,
        None => &mut reply.head.headers,
    };
    headers.insert(PUSHBACK, Pushback::Never.to_value());
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(&status.name().to_ascii_lowercase()),
            Self::Lost(_) => f.write_str("reset"),
            Self::TimedOut => f.write_str("per_try_timeout"),
            Self::Hedge => f.write_str("hedge"),
        }
    }
}
