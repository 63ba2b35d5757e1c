//! Where the numbers of a draw come from.

use std::cell::Cell;

/// 2^64 divided by the golden ratio, odd: the step of the sequence.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Numbers that fill 0..2^64 evenly: each next one falls into the widest gap that the earlier ones
/// left (Weyl sequence on the golden ratio).
///
/// Shares of traffic so approach the weights as 1/n, where independent random numbers need 1/√n:
/// after 6 000 calls no endpoint is more than a few calls off its share. The start is random, so
/// that proxies do not move in step.
#[derive(Debug)]
pub(super) struct Sequence(Cell<u64>);

impl Sequence {
    pub(super) fn new() -> Self {
        Self(Cell::new(fastrand::u64(..)))
    }

    pub(super) fn next(&self) -> u64 {
        let next = self.0.get().wrapping_add(GOLDEN);
        self.0.set(next);
        next
    }
}

/// Maps a number of 0..2^64 to 0..`bound` evenly (Lemire's multiplication).
pub(super) const fn scale(number: u64, bound: u64) -> u64 {
    ((number as u128 * bound as u128) >> 64) as u64
}
