//! What Prometheus scrapes of the path of a call.
//!
//! Families live on a registry of our own, so that two proxies can run in one test process. A
//! service's handles are resolved once, in [`Metrics::service`]; the path of a call only adds.

mod panics;
mod service;
mod tasks;
mod tls;

pub use service::{AttemptOutcome, OpenConnection, ServiceMetrics};
pub use tasks::Tasks;
pub use tls::{Handshakes, TlsMetrics};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, MetricVec, MetricVecBuilder},
};

/// Bucket bounds in seconds: a local call takes a quarter of a millisecond, a stream may take minutes.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0,
];

/// Label of calls whose service no source knows: labels never grow from what a caller sends.
pub const UNKNOWN_SERVICE: &str = "unknown";

/// The families that the path of a call counts in.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    requests_in_flight: IntGaugeVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    filter_matches: IntCounterVec,
    retries_skipped: IntCounterVec,
    faults: IntCounterVec,
    limited: IntCounterVec,
    ejections: IntCounterVec,
    health_checks: IntCounterVec,
    adaptive_limit: IntGaugeVec,
    connect_seconds: HistogramVec,
    connections_opened: IntCounterVec,
    connections: IntGaugeVec,
    downstream_connections: IntGaugeVec,
    downstream_limited: IntCounterVec,
    accept_failures: IntCounterVec,
    memory_limit: IntGaugeVec,
    memory_stage: IntGaugeVec,
    config_reloads: IntCounterVec,
    tls: TlsMetrics,
    tasks: Tasks,
}

impl Metrics {
    /// All families, registered on a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            requests: counters(
                &registry,
                "requests_total",
                "Calls that ended, by how they ended.",
                &["service", "grpc_status", "error"],
            ),
            request_seconds: histograms(
                &registry,
                "request_duration_seconds",
                "Time from the first header byte in to the last byte out.",
                &["service"],
            ),
            requests_in_flight: gauges(
                &registry,
                "requests_in_flight",
                "Calls that have not ended.",
                &["service"],
            ),
            attempts: counters(
                &registry,
                "attempts_total",
                "Tries of calls on one endpoint, by how they ended.",
                &["service", "outcome"],
            ),
            retries: counters(
                &registry,
                "retries_total",
                "Further tries of a call, by why the one before ended.",
                &["service", "reason"],
            ),
            filter_matches: counters(
                &registry,
                "filter_matches_total",
                "Picks by filter, by the rule that matched; those of callers are one.",
                &["service", "rule"],
            ),
            retries_skipped: counters(
                &registry,
                "retries_skipped_total",
                "Calls that the policy lets be tried again and that were not, by why not.",
                &["service", "reason"],
            ),
            faults: counters(
                &registry,
                "faults_total",
                "Calls that a route made trouble for on purpose, by what it did.",
                &["service", "fault"],
            ),
            limited: counters(
                &registry,
                "limited_total",
                "Calls refused by a limit of their service, by which.",
                &["service", "limit"],
            ),
            ejections: counters(
                &registry,
                "ejections_total",
                "Times that an endpoint was left out for how its calls ended, by the rule.",
                &["service", "reason"],
            ),
            health_checks: counters(
                &registry,
                "health_checks_total",
                "Times that an endpoint was asked whether it is well, by what came of it.",
                &["service", "result"],
            ),
            adaptive_limit: gauges(
                &registry,
                "adaptive_limit",
                "Calls that may wait for their answer now, where the limit is adaptive.",
                &["service", "route"],
            ),
            connect_seconds: histograms(
                &registry,
                "connect_duration_seconds",
                "Time until an endpoint counted as connected.",
                &["service"],
            ),
            connections_opened: counters(
                &registry,
                "upstream_connections_opened_total",
                "Connections opened to endpoints.",
                &["service"],
            ),
            connections: gauges(
                &registry,
                "upstream_connections",
                "Open connections to endpoints.",
                &["service"],
            ),
            downstream_connections: gauges(
                &registry,
                "downstream_connections",
                "Open connections of applications.",
                &["listener"],
            ),
            downstream_limited: counters(
                &registry,
                "downstream_limited_total",
                "Connections and calls of applications ended by a limit of the listener, by which.",
                &["reason"],
            ),
            accept_failures: counters(
                &registry,
                "accept_failures_total",
                "Times that the system could not accept a connection, most likely for want of descriptors.",
                &["listener"],
            ),
            memory_limit: gauges(
                &registry,
                "memory_limit_bytes",
                "Memory that the process may use: max_memory, or what its control group has.",
                &[],
            ),
            memory_stage: gauges(
                &registry,
                "memory_stage",
                "What is refused for want of memory: 0 nothing, 1 calls, 2 connections, too, 3 what there is of them is ended.",
                &[],
            ),
            config_reloads: counters(
                &registry,
                "config_reloads_total",
                "Reloads of the configuration, by result.",
                &["result"],
            ),
            tls: TlsMetrics::new(&registry),
            tasks: Tasks::new().expect("constant name and labels"),
            registry,
        };
        for result in ["ok", "error"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        let build = gauges(
            &metrics.registry,
            "build_info",
            "Always 1; the label tells the version.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&metrics.registry, metrics.tasks.clone());
        register(&metrics.registry, panics::Panics::new());
        register(&metrics.registry, prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// The registry, for whoever scrapes and for collectors of other parts.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Handles of one service. Costs a few look-ups by label: call it when a service appears.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics::new(self, service)
    }

    /// Open connections of one listener.
    pub fn downstream_connections(&self, listener: &str) -> prometheus::IntGauge {
        self.downstream_connections.with_label_values(&[listener])
    }

    /// Connections and calls ended by the listener's limit of this name.
    pub fn downstream_limited(&self, reason: &str) -> prometheus::IntCounter {
        self.downstream_limited.with_label_values(&[reason])
    }

    /// Times that a connection could not be accepted at this listener, or at the admin address.
    pub fn accept_failures(&self, listener: &str) -> prometheus::IntCounter {
        self.accept_failures.with_label_values(&[listener])
    }

    /// What the process may use of memory, in bytes, and the stage that it is in.
    pub fn set_memory(&self, limit: u64, stage: u8) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.memory_limit.with_label_values(&[] as &[&str]).set(limit);
        self.memory_stage.with_label_values(&[] as &[&str]).set(stage.into());
    }

    /// Ejections from the service, by the rule of this name.
    pub fn ejections(&self, service: &str, reason: &str) -> prometheus::IntCounter {
        self.ejections.with_label_values(&[service, reason])
    }

    /// Counts an answer to the question whether an endpoint of the service is well.
    pub fn checked(&self, service: &str, is_well: bool) {
        self.health_checks
            .with_label_values(&[service, if is_well { "ok" } else { "failed" }])
            .inc();
    }

    /// TLS handshakes.
    pub const fn tls(&self) -> &TlsMetrics {
        &self.tls
    }

    /// Tasks of each thread.
    pub const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Counts a reload of the configuration.
    pub fn count_reload(&self, succeeded: bool) {
        self.config_reloads.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    family(registry, IntCounterVec::new(Opts::new(full(name), help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    family(registry, IntGaugeVec::new(Opts::new(full(name), help), labels))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(full(name), help).buckets(SECONDS.to_vec());
    family(registry, HistogramVec::new(opts, labels))
}

fn full(name: &str) -> String {
    format!("pillion_{name}")
}

/// Names, labels and buckets are constants of this file: a test makes them all, so a wrong one
/// cannot be shipped.
fn family<B: MetricVecBuilder + 'static>(
    registry: &Registry,
    made: prometheus::Result<MetricVec<B>>,
) -> MetricVec<B>
where
    MetricVec<B>: Collector,
{
    let family = made.expect("constant name and labels");
    register(registry, family.clone());
    family
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect("each constant name is registered once");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_registers_and_two_sets_live_side_by_side() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.count_reload(true);
        one.service("orders");
        let names: Vec<_> = one.registry().gather().iter().map(|f| f.name().to_owned()).collect();
        assert!(names.contains(&"pillion_build_info".to_owned()), "{names:?}");
        assert!(names.contains(&"pillion_requests_in_flight".to_owned()), "{names:?}");
        drop(two);
    }
}
