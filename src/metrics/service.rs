//! Counters of one service, resolved once.

use std::{fmt, sync::OnceLock, time::Duration};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::Metrics;
use crate::model::{GrpcStatus, Reason};

/// How one try of a call on one endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The endpoint answered, whatever it answered.
    Ok,
    /// It could not be connected.
    ConnectFailed,
    /// It was not connected in time.
    ConnectTimeout,
    /// It said that it did not work on the call (`REFUSED_STREAM`, `GOAWAY`).
    Refused,
    /// It broke off.
    Reset,
    /// The caller went away, or the deadline passed.
    Cancelled,
}

impl AttemptOutcome {
    const ALL: [Self; 6] = [
        Self::Ok,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Refused,
        Self::Reset,
        Self::Cancelled,
    ];

    /// Value of the metric label `outcome`, and of `reason` when it led to another attempt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Handles of one service: adding to one is an atomic add, with no look-up by label but for the
/// rare results (errors of the proxy, requests that are not gRPC).
pub struct ServiceMetrics {
    families: Metrics,
    label: String,
    by_status: [OnceLock<IntCounter>; GrpcStatus::COUNT],
    seconds: Histogram,
    in_flight: IntGauge,
    attempts: [IntCounter; AttemptOutcome::ALL.len()],
    connect_seconds: Histogram,
    connections_opened: IntCounter,
    connections: IntGauge,
}

impl ServiceMetrics {
    pub(super) fn new(families: &Metrics, label: &str) -> Self {
        let attempt = |outcome: AttemptOutcome| {
            families.attempts.with_label_values(&[label, outcome.as_str()])
        };
        Self {
            by_status: Default::default(),
            seconds: families.request_seconds.with_label_values(&[label]),
            in_flight: families.requests_in_flight.with_label_values(&[label]),
            attempts: AttemptOutcome::ALL.map(attempt),
            connect_seconds: families.connect_seconds.with_label_values(&[label]),
            connections_opened: families.connections_opened.with_label_values(&[label]),
            connections: families.connections.with_label_values(&[label]),
            label: label.to_owned(),
            families: families.clone(),
        }
    }

    /// A call began.
    pub fn call_began(&self) {
        self.in_flight.inc();
    }

    /// A gRPC call ended after `took`, with the status that the caller was given.
    pub fn grpc_call_ended(&self, status: GrpcStatus, error: Option<Reason>, took: Duration) {
        match error {
            None => self.by_status[status.code() as usize]
                .get_or_init(|| self.requests(status.name(), ""))
                .inc(),
            Some(reason) => self.requests(status.name(), reason.as_str()).inc(),
        }
        self.ended(took);
    }

    /// Any other request ended after `took`, with an HTTP status; 499 when the caller went away.
    pub fn http_call_ended(&self, status: u16, error: Option<Reason>, took: Duration) {
        self.requests(&status.to_string(), error.map_or("", Reason::as_str)).inc();
        self.ended(took);
    }

    /// Picks by this rule of a filter. Costs a look-up by label: call it when a filter is prepared.
    pub fn filter_matches(&self, rule: &str) -> IntCounter {
        self.families.filter_matches.with_label_values(&[&*self.label, rule])
    }

    /// An attempt ended.
    pub fn attempt_ended(&self, outcome: AttemptOutcome) {
        self.attempts[outcome as usize].inc();
    }

    /// Another attempt is made for this reason: how the one before ended, or what it lacked.
    pub fn retried(&self, reason: &str) {
        self.families.retries.with_label_values(&[&*self.label, reason]).inc();
    }

    /// No other attempt is made, for this reason, where the policy would have had one.
    pub fn retry_skipped(&self, reason: &str) {
        self.families.retries_skipped.with_label_values(&[&*self.label, reason]).inc();
    }

    /// A route held the call up or aborted it: `delay` or `abort`.
    pub fn fault(&self, fault: &str) {
        self.families.faults.with_label_values(&[&*self.label, fault]).inc();
    }

    /// The service's limit of this name refused a call.
    pub fn limited(&self, limit: &str) {
        self.families.limited.with_label_values(&[&*self.label, limit]).inc();
    }

    /// So many calls may wait for their answer from now on: those of the service, or of a route that
    /// has limits of its own.
    pub fn adaptive_limit(&self, route: &str, limit: u32) {
        self.families.adaptive_limit.with_label_values(&[&*self.label, route]).set(limit.into());
    }

    /// An endpoint was connected after `took`.
    pub fn connected(&self, took: Duration) {
        self.connect_seconds.observe(took.as_secs_f64());
    }

    /// A connection was opened; it counts as open until the guard is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections_opened.inc();
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    fn requests(&self, status: &str, error: &str) -> IntCounter {
        self.families.requests.with_label_values(&[&self.label, status, error])
    }

    fn ended(&self, took: Duration) {
        self.in_flight.dec();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl fmt::Debug for ServiceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceMetrics").field("label", &self.label).finish_non_exhaustive()
    }
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
