//! Handshakes, by side.

use std::{path::Path, time::Duration};

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::{counters, gauges};

/// Handles of all sides; cloning shares them.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    /// Handshakes with applications.
    pub downstream: Handshakes,
    /// Handshakes with endpoints.
    pub upstream: Handshakes,
    /// Handshakes with operators.
    pub admin: Handshakes,
    expiries: IntGaugeVec,
    reads: IntCounterVec,
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
        for side in ["downstream", "upstream", "admin"] {
            failures.with_label_values(&[side, "other"]);
        }
        let side = |side| Handshakes {
            side,
            full: done.with_label_values(&[side, "no"]),
            resumed: done.with_label_values(&[side, "yes"]),
            failures: failures.clone(),
        };
        let expiries = gauges(
            registry,
            "tls_certificate_expiry_timestamp_seconds",
            "When a certificate in use expires, in seconds since 1970; of several authorities, the first.",
            &["file", "role"],
        );
        let reads = counters(
            registry,
            "tls_reloads_total",
            "Times that files of TLS were read again because they had changed, by result.",
            &["result"],
        );
        for result in ["ok", "error"] {
            reads.with_label_values(&[result]);
        }
        let (downstream, upstream, admin) = (side("downstream"), side("upstream"), side("admin"));
        Self { downstream, upstream, admin, expiries, reads }
    }
}

impl TlsMetrics {
    /// Files were read again.
    pub fn read_again(&self, succeeded: bool) {
        self.reads.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
    }

    /// These certificates are in use, and no others: file, role, and when it expires since 1970.
    pub fn set_expiries<'a>(&self, all: impl Iterator<Item = (&'a Path, &'static str, Duration)>) {
        self.expiries.reset();
        for (file, role, since) in all {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            self.expiries.with_label_values(&[&*file.to_string_lossy(), role]).set(seconds);
        }
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
