//! A hash that is the same on every host, in every version and after every restart.

/// Hash of `bytes`, spread evenly over 0..2^64: FNV-1a, and then the finalizer of MurmurHash3, without
/// which near values fall near each other. What calls go where depends on it, so it never changes. It
/// does not withstand a caller who looks for collisions.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mix = |hash: u64, factor: u64| (hash ^ (hash >> 33)).wrapping_mul(factor);
    let mixed = mix(mix(fnv, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// One number of two; the order matters (the finalizer of SplitMix64). As stable as the
/// hash itself.
pub const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_is_that_of_every_other_version() {
        assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn the_hash_of_a_text_is_what_it_has_always_been() {
        // As computed by another program.
        assert_eq!(stable_hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(stable_hash(b"a"), 0x82a2_a958_a9be_ce5b);
        assert_eq!(stable_hash(b"user-42"), 0xa395_32c7_ab05_1e8d);
    }

    #[test]
    fn near_texts_spread_evenly() {
        let mut buckets = [0_u32; 16];
        for user in 0..16_000 {
            buckets[(stable_hash(format!("user-{user}").as_bytes()) >> 60) as usize] += 1;
        }
        // 1000 each; four standard deviations are 122.
        assert!(buckets.iter().all(|count| count.abs_diff(1_000) < 122), "{buckets:?}");
    }
}
