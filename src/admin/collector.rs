//! Metrics of services and sources, read from the directory at each scrape.
//!
//! So the path of a call keeps no series of an endpoint, and a series is gone with what it counts.

use std::cmp::Reverse;

use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    discovery::{Directory, SourceStatus, Trouble},
    model::{Service, State},
};

/// Most endpoints of a service that have a series of their own; the rest count as `other`.
const MOST_ENDPOINTS: usize = 100;

/// Collects from a directory.
#[derive(Debug)]
pub struct DirectoryCollector {
    directory: Directory,
    descriptions: Vec<Desc>,
}

/// The families, made anew for each scrape.
struct Families {
    endpoints: IntGaugeVec,
    picks: IntCounterVec,
    synced: IntGaugeVec,
    up: IntGaugeVec,
    troubles: IntCounterVec,
    revision: IntGaugeVec,
    age: GaugeVec,
    events: IntCounterVec,
    resyncs: IntCounterVec,
    brakes: IntCounterVec,
    unsaved: IntCounterVec,
    rejected: IntGaugeVec,
}

impl DirectoryCollector {
    /// Collects from `directory`.
    ///
    /// # Errors
    /// A name or label is not one: a mistake of this file, found by any test that scrapes.
    pub fn new(directory: Directory) -> prometheus::Result<Self> {
        let families = Families::new()?;
        let descriptions =
            families.all().iter().flat_map(|family| family.desc()).cloned().collect();
        Ok(Self { directory, descriptions })
    }
}

impl Collector for DirectoryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        for service in self.directory.services() {
            families.add_service(&service);
        }
        for source in self.directory.sources() {
            families.add_source(&source);
        }
        let collected = families.all().into_iter().flat_map(Collector::collect);
        collected.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("pillion_{name}"), help);
        let source = &["source"];
        Ok(Self {
            endpoints: IntGaugeVec::new(
                opts("endpoints", "Known endpoints, by state."),
                &["service", "state"],
            )?,
            picks: IntCounterVec::new(
                opts("picks_total", "Times that an endpoint was chosen since it joined."),
                &["service", "endpoint"],
            )?,
            synced: IntGaugeVec::new(
                opts("source_synced", "Whether the source has been read once."),
                source,
            )?,
            up: IntGaugeVec::new(
                opts("source_up", "Whether the source is being read now."),
                source,
            )?,
            troubles: IntCounterVec::new(
                opts("source_troubles_total", "Trouble with the source, by its cause."),
                &["source", "cause"],
            )?,
            revision: IntGaugeVec::new(
                opts("source_revision", "Newest registry revision applied."),
                source,
            )?,
            age: GaugeVec::new(
                opts(
                    "source_age_seconds",
                    "Time since the source last proved that what is known is current.",
                ),
                source,
            )?,
            events: IntCounterVec::new(opts("source_events_total", "Changes applied."), source)?,
            resyncs: IntCounterVec::new(
                opts("source_resyncs_total", "Lists read again after the first."),
                source,
            )?,
            brakes: IntCounterVec::new(
                opts(
                    "source_brakes_total",
                    "Times that most of a service vanished at once and its endpoints were held.",
                ),
                source,
            )?,
            unsaved: IntCounterVec::new(
                opts("source_save_errors_total", "Times that sets could not be saved."),
                source,
            )?,
            rejected: IntGaugeVec::new(
                opts("source_rejected_records", "Records that cannot be used now."),
                source,
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 12] {
        [
            &self.endpoints,
            &self.picks,
            &self.synced,
            &self.up,
            &self.troubles,
            &self.revision,
            &self.age,
            &self.events,
            &self.resyncs,
            &self.brakes,
            &self.unsaved,
            &self.rejected,
        ]
    }

    fn add_service(&self, service: &Service) {
        let (name, snapshot) = (service.name().as_str(), service.snapshot());
        for state in State::ALL {
            let count = snapshot.endpoints.iter().filter(|e| e.state() == state).count();
            self.endpoints.with_label_values(&[name, state.as_str()]).set(count as i64);
        }
        let mut picked: Vec<_> = snapshot.endpoints.iter().map(|e| (e.load.picks(), e)).collect();
        if picked.len() > MOST_ENDPOINTS {
            picked.sort_unstable_by_key(|(picks, _)| Reverse(*picks));
        }
        for (at, (picks, endpoint)) in picked.into_iter().enumerate() {
            let label =
                if at < MOST_ENDPOINTS { endpoint.record.address.as_str() } else { "other" };
            self.picks.with_label_values(&[name, label]).inc_by(picks);
        }
    }

    fn add_source(&self, source: &SourceStatus) {
        let name = &[&*source.name];
        self.synced.with_label_values(name).set(i64::from(source.synced));
        self.up.with_label_values(name).set(i64::from(source.up));
        for (trouble, count) in Trouble::ALL.into_iter().zip(source.troubles) {
            self.troubles.with_label_values(&[&*source.name, trouble.as_str()]).inc_by(count);
        }
        self.revision.with_label_values(name).set(source.revision);
        if let Some(age) = source.age {
            self.age.with_label_values(name).set(age.as_secs_f64());
        }
        self.events.with_label_values(name).inc_by(source.events);
        self.resyncs.with_label_values(name).inc_by(source.resyncs);
        self.brakes.with_label_values(name).inc_by(source.brakes);
        self.unsaved.with_label_values(name).inc_by(source.unsaved);
        self.rejected
            .with_label_values(name)
            .set(i64::try_from(source.rejected).unwrap_or(i64::MAX));
    }
}
