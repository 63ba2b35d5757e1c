//! Metrics of registrations, read at each scrape: a series is gone with its registration.

use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::register::{Loss, Registrations, Report, State};

/// Collects from the registrations at work.
#[derive(Debug)]
pub struct RegistrationCollector {
    registrations: Registrations,
    descriptions: Vec<Desc>,
}

/// The families, made anew for each scrape.
struct Families {
    registered: IntGaugeVec,
    state: IntGaugeVec,
    healthy: IntGaugeVec,
    age: GaugeVec,
    lease: GaugeVec,
    writes: IntCounterVec,
    failures: IntCounterVec,
    losses: IntCounterVec,
}

impl RegistrationCollector {
    /// Collects from `registrations`.
    ///
    /// # Errors
    /// A name or label is not one: a mistake of this file, found by any test that scrapes.
    pub fn new(registrations: Registrations) -> prometheus::Result<Self> {
        let families = Families::new()?;
        let descriptions =
            families.all().iter().flat_map(|family| family.desc()).cloned().collect();
        Ok(Self { registrations, descriptions })
    }
}

impl Collector for RegistrationCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        for report in self.registrations.reports() {
            families.add(&report);
        }
        let collected = families.all().into_iter().flat_map(Collector::collect);
        collected.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("pillion_registration_{name}"), help);
        let labels = &["name", "service"];
        Ok(Self {
            registered: IntGaugeVec::new(
                opts("registered", "Whether others find the address in the registry."),
                labels,
            )?,
            state: IntGaugeVec::new(
                opts("state", "1 for the state that the registration is in."),
                &["name", "service", "state"],
            )?,
            healthy: IntGaugeVec::new(
                opts("healthy", "Whether the probes say that it is healthy."),
                labels,
            )?,
            age: GaugeVec::new(
                opts(
                    "age_seconds",
                    "Time since etcd last confirmed key and lease, or since the start.",
                ),
                labels,
            )?,
            lease: GaugeVec::new(
                opts("lease_seconds", "Time that the lease lives at least; 0 without one."),
                labels,
            )?,
            writes: IntCounterVec::new(
                opts("writes_total", "Times that the key was written."),
                labels,
            )?,
            failures: IntCounterVec::new(
                opts("failures_total", "Times that etcd did not do what it was asked."),
                labels,
            )?,
            losses: IntCounterVec::new(
                opts("losses_total", "Times that the registration was found to be gone, by how."),
                &["name", "service", "reason"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 8] {
        let Self { registered, state, healthy, age, lease, writes, failures, losses } = self;
        [registered, state, healthy, age, lease, writes, failures, losses]
    }

    fn add(&self, report: &Report) {
        let (name, service) = (&*report.name, &*report.service);
        let labels = &[name, service];
        self.registered.with_label_values(labels).set(report.state.is_found().into());
        for state in State::ALL {
            let labels = &[name, service, state.as_str()];
            self.state.with_label_values(labels).set((report.state == state).into());
        }
        self.healthy.with_label_values(labels).set((report.healthy == Some(true)).into());
        let age = report.age.unwrap_or(report.up);
        self.age.with_label_values(labels).set(age.as_secs_f64());
        let left = report.lease_left.unwrap_or_default();
        self.lease.with_label_values(labels).set(left.as_secs_f64());
        self.writes.with_label_values(labels).inc_by(report.writes);
        self.failures.with_label_values(labels).inc_by(report.failures);
        for (loss, count) in Loss::ALL.iter().zip(report.losses) {
            self.losses.with_label_values(&[name, service, loss.as_str()]).inc_by(count);
        }
    }
}
