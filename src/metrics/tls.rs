//! Handshakes, by side.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::counters;

/// Handles of both sides; cloning shares them.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    /// Handshakes with applications.
    pub downstream: Handshakes,
    /// Handshakes with endpoints.
    pub upstream: Handshakes,
}

/// Handshakes of one side.
#[derive(Clone, Debug)]
pub struct Handshakes {
    side: &'static str,
    full: IntCounter,
    resumed: IntCounter,
    failures: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let done = counters(
            registry,
            "tls_handshakes_total",
            "TLS handshakes that led to a connection, and whether they went on from an earlier one.",
            &["side", "resumed"],
        );
        let failures = counters(
            registry,
            "tls_handshake_failures_total",
            "TLS handshakes that led to no connection, by why not.",
            &["side", "reason"],
        );
        let side = |side| Handshakes {
            side,
            full: done.with_label_values(&[side, "no"]),
            resumed: done.with_label_values(&[side, "yes"]),
            failures: failures.clone(),
        };
        Self { downstream: side("downstream"), upstream: side("upstream") }
    }
}

impl Handshakes {
    /// One led to a connection.
    pub fn done(&self, resumed: bool) {
        if resumed { &self.resumed } else { &self.full }.inc();
    }

    /// One led to none, for this reason.
    pub fn failed(&self, reason: &str) {
        self.failures.with_label_values(&[self.side, reason]).inc();
    }
}
