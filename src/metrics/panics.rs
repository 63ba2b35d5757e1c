//! Panics, read at each scrape: they are counted where nothing may go wrong.

use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::full;
use crate::panics::counts;

/// The one family.
pub(super) struct Panics(Vec<Desc>);

impl Panics {
    pub(super) fn new() -> Self {
        Self(family().desc().into_iter().cloned().collect())
    }
}

impl Collector for Panics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = family();
        for (task, count) in counts() {
            family.with_label_values(&[task.as_str()]).inc_by(count);
        }
        family.collect()
    }
}

fn family() -> IntCounterVec {
    let help = "Mistakes of the program that were caught, by what each of them ended.";
    IntCounterVec::new(Opts::new(full("panics_total"), help), &["task"])
        .expect("constant name and label")
}
