//! Hashes on which all proxies agree: the same in every process, on every machine, in every version.

use crate::model::{Endpoint, stable_hash};

/// Hash of an endpoint: of its address, which no other endpoint of its service has.
pub(super) fn hash_of(endpoint: &Endpoint) -> u64 {
    stable_hash(endpoint.record.address.as_str().as_bytes())
}

/// One number of two; the order matters (the finalizer of SplitMix64).
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_every_other_version() {
        assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
    }
}
