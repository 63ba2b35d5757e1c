//! Reads Prometheus' text format.

use std::collections::HashMap;

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Vec<Series>);

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: HashMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text; label values of ours hold no commas, quotes or braces.
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).map(series).collect())
    }

    /// Sum of all series of `pillion_{name}` that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// Values that a label has in the series of `pillion_{name}` that have these labels, sorted.
    pub(crate) fn values_of(
        &self,
        label: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Vec<String> {
        let mut values: Vec<_> =
            self.matching(name, labels).filter_map(|s| s.labels.get(label).cloned()).collect();
        values.sort();
        values
    }

    /// Names of all series, sorted, each once.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.iter().map(|series| &*series.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |series| {
            let has = |(label, value): &(&str, &str)| {
                series.labels.get(*label).is_some_and(|found| found == value)
            };
            series.name.strip_prefix("pillion_") == Some(name) && labels.iter().all(has)
        })
    }
}

fn series(line: &str) -> Series {
    let (id, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = id.strip_suffix('}').and_then(|id| id.split_once('{')).unwrap_or((id, ""));
    let label = |text: &str| {
        let (label, value) = text.split_once('=').expect(line);
        (label.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(label).collect();
    Series { name: name.to_owned(), labels, value: value.parse().expect(line) }
}
