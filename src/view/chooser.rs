//! What calls choose from, and where their picks are counted.

use std::ops::Deref;

use prometheus::IntCounter;

use crate::{
    balance::Choice,
    config::Policy,
    metrics::ServiceMetrics,
    model::{Selector, Selectors},
};

/// Label of the picks by whatever selectors callers send: labels never grow from those.
const OF_CALLERS: &str = "pillion-filter";

/// A choice, prepared once for a snapshot.
#[derive(Debug)]
pub struct Chooser {
    choice: Choice,
    /// One a rule; empty where every endpoint is allowed, of which there is nothing to tell.
    matches: Vec<IntCounter>,
}

impl Chooser {
    pub(super) fn new(
        choice: Choice,
        selectors: &Selectors,
        policy: &Policy,
        metrics: &ServiceMetrics,
    ) -> Self {
        let is_configured = selectors.text() == policy.filter.text();
        let label = |rule: &Selector| match (is_configured, rule.is_empty()) {
            (false, _) => OF_CALLERS.to_owned(),
            (true, true) => "any".to_owned(),
            (true, false) => rule.to_string(),
        };
        let counted = if selectors.is_any() { &[] } else { selectors.rules() };
        let matches = counted.iter().map(|rule| metrics.filter_matches(&label(rule))).collect();
        Self { choice, matches }
    }

    /// Counts a pick by the rule of this number.
    pub fn count(&self, rule: usize) {
        if let Some(counter) = self.matches.get(rule) {
            counter.inc();
        }
    }
}

impl Deref for Chooser {
    type Target = Choice;

    fn deref(&self) -> &Choice {
        &self.choice
    }
}
