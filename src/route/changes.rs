//! What a route changes of the headers of a call.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::HeaderChanges;

/// The changes of one route, ready to be made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Changes {
    pub(super) fn new(changes: &HeaderChanges) -> Self {
        let value = |(name, value): &(HeaderName, String)| {
            // Always some: the configuration lets nothing else through.
            HeaderValue::from_str(value).ok().map(|value| (name.clone(), value))
        };
        Self {
            remove: changes.remove.clone(),
            set: changes.set.iter().filter_map(value).collect(),
            add: changes.add.iter().filter_map(value).collect(),
        }
    }

    /// Makes them: removes, then sets, then adds.
    pub(super) fn make(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}
