//! What workers share without a lock, for loom: it tries every order in which threads may take their
//! steps, and every value that the memory model lets a load see.
//!
//! The files are pillion's own. Only where they say `std::sync::atomic` they find loom's, since here
//! `std` is this crate.

#![allow(dead_code, reason = "most of it is only used by the rest of pillion")]

extern crate self as std;
extern crate std as real;

pub use real::{
    borrow, cmp, collections, error, fmt, hash, iter, mem, net, ops, ptr, str, string, time,
};

/// As in the standard library, but for the atomics.
pub mod sync {
    pub use real::sync::*;

    /// loom's.
    pub mod atomic {
        pub use loom::sync::atomic::*;
    }
}

#[path = "../../../src"]
mod sources {
    pub mod model;
}

#[path = "../../../src/limit"]
mod limits {
    mod bucket;
    mod counter;

    pub use counter::Counter;

    /// A bucket that fills once a second and holds `burst`; whether a token was taken from it.
    #[derive(Debug, Default)]
    pub struct Bucket(bucket::Bucket);

    impl Bucket {
        /// Takes a token, at a time when the bucket would be full.
        pub fn take(&self, burst: u32) -> bool {
            const LATER: u64 = 1_000_000_000_000;
            self.0.take(bucket::Rate::new(1, burst), LATER).is_ok()
        }
    }
}

pub use limits::{Bucket, Counter};
pub use sources::model;
