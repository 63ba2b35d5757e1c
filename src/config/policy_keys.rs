//! What a route says of policy: only the keys that it has, to be laid over those of a service.

use std::sync::Arc;

use super::{check, raw::RawPolicy, settings::Policy, value::Value};

/// Some keys of a policy. The others are those of whatever it is laid over.
#[derive(Clone, Debug, Default)]
pub struct PolicyKeys(pub(super) RawPolicy);

impl PolicyKeys {
    /// `base`, with these keys instead of its own.
    pub fn over(&self, base: &Arc<Policy>) -> Arc<Policy> {
        if self.is_empty() { Arc::clone(base) } else { Arc::new(check::policy(&self.0, base)) }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Whether it limits calls, beyond what a service does.
    pub const fn has_limits(&self) -> bool {
        !self.0.limits.is_absent()
    }

    /// One of its keys.
    pub(super) fn first(&self) -> Option<String> {
        self.0.write().as_table()?.keys().next().cloned()
    }
}

/// Keys say the same when they are written the same, wherever they stood.
impl PartialEq for PolicyKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.write() == other.0.write()
    }
}

impl Eq for PolicyKeys {}
