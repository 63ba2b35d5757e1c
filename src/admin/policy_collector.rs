//! Metrics of live policy, read from it at each scrape. There are none where there is no live policy.

use std::{sync::Arc, time::SystemTime};

use prometheus::{
    GaugeVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::policy::{Policy, Report};

/// Most refused documents that have a series of their own; [`Families::documents`] counts all.
const MOST_REFUSED: usize = 100;

/// Collects from the live policy.
#[derive(Debug)]
pub struct PolicyCollector {
    policy: Arc<Policy>,
    descriptions: Vec<Desc>,
}

/// The families, made anew for each scrape.
struct Families {
    synced: IntGauge,
    revision: IntGauge,
    documents: IntGaugeVec,
    refused: GaugeVec,
}

impl PolicyCollector {
    /// Collects from `policy`.
    ///
    /// # Errors
    /// A name or label is not one: a mistake of this file, found by any test that scrapes.
    pub fn new(policy: Arc<Policy>) -> prometheus::Result<Self> {
        let families = Families::new()?;
        let descriptions =
            families.all().iter().flat_map(|family| family.desc()).cloned().collect();
        Ok(Self { policy, descriptions })
    }
}

impl Collector for PolicyCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(report), Ok(families)) = (self.policy.report(), Families::new()) else {
            return Vec::new();
        };
        families.fill(&report);
        let collected = families.all().into_iter().flat_map(Collector::collect);
        collected.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("pillion_policy_{name}"), help);
        Ok(Self {
            synced: IntGauge::with_opts(opts(
                "synced",
                "1 when all live policy has been read, and etcd can be asked.",
            ))?,
            revision: IntGauge::with_opts(opts(
                "revision",
                "Newest etcd revision of the live policy in force.",
            ))?,
            documents: IntGaugeVec::new(
                opts("documents", "Documents of live policy, by state."),
                &["state"],
            )?,
            refused: GaugeVec::new(
                opts("refused_since_seconds", "Unix time from which on a document is refused."),
                &["key"],
            )?,
        })
    }

    fn fill(&self, report: &Report) {
        self.synced.set(report.synced.into());
        let in_force = || report.documents.iter().filter_map(|document| document.in_force);
        self.revision.set(in_force().max().unwrap_or_default());
        let refused: Vec<_> = report
            .documents
            .iter()
            .filter_map(|document| Some((&*document.key, document.refused.as_ref()?)))
            .collect();
        for (state, count) in [("in_force", in_force().count()), ("refused", refused.len())] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.documents.with_label_values(&[state]).set(count);
        }
        for (key, refusal) in refused.into_iter().take(MOST_REFUSED) {
            let since = refusal.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.refused.with_label_values(&[key]).set(since.as_secs_f64());
        }
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [&self.synced, &self.revision, &self.documents, &self.refused]
    }
}
