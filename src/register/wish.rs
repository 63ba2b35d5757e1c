//! What is wanted of a registration now: said by probes, operators and reloads, done by its keeper.

use crate::config::Details;

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// What the probes say; none as long as they have not decided.
    pub(super) healthy: Option<bool>,
    /// Why the last probe failed.
    pub(super) unwell: Option<String>,
    /// What is said of the instance.
    pub(super) details: Details,
    /// What the configuration says of it.
    pub(super) configured: Details,
    /// Counts the changes of `details`.
    pub(super) generation: u64,
    /// Whether it shall go, and never come back.
    pub(super) leaving: bool,
}

impl Wish {
    pub(super) fn new(details: Details, healthy: Option<bool>) -> Self {
        let configured = details.clone();
        Self { healthy, unwell: None, details, configured, generation: 1, leaving: false }
    }

    /// Whether it shall be in the registry.
    pub(super) fn is_wanted(&self) -> bool {
        self.healthy == Some(true) && !self.leaving
    }
}
