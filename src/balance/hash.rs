//! Hashes on which all proxies agree: the same in every process, on every machine, in every version.

use crate::model::{Endpoint, stable_hash};

pub(super) use crate::model::mix;

/// Hash of an endpoint: of its address, which no other endpoint of its service has.
pub(super) fn hash_of(endpoint: &Endpoint) -> u64 {
    stable_hash(endpoint.record.address.as_str().as_bytes())
}
