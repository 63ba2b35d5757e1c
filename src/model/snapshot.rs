//! What is known of one service at one moment.

use std::sync::Arc;

use super::{Endpoint, ServiceName};

/// An immutable set of endpoints. Discovery publishes a whole new one for every change; a call uses
/// one from its first attempt to its last.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whose endpoints they are.
    pub service: ServiceName,
    /// Registry revision it reflects; 0 where the source has none.
    pub revision: i64,
    /// One entry an address, in the order of the address.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Records that could not be used.
    pub rejected: Vec<Rejected>,
}

/// A registry record that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Registry key, or the file's path and entry.
    pub key: Arc<str>,
    /// What is wrong with it, for a person.
    pub reason: String,
}

impl Snapshot {
    /// A service of which nothing is known yet.
    pub const fn empty(service: ServiceName) -> Self {
        Self { service, revision: 0, endpoints: Vec::new(), rejected: Vec::new() }
    }
}
