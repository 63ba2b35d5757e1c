//! Token buckets: so many calls a second, and so many at once after a pause.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use foldhash::quality::RandomState;
use std::hash::BuildHasher;

/// Buckets of a rate that is kept by a header or by method. One that has filled up is as good as
/// none, so a place is free again as soon as its caller has paused: about this many callers can be
/// below a full bucket at once.
const PLACES: usize = 8192;
/// Places that one caller may have its bucket in.
const PROBES: usize = 8;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Nanoseconds in which one token comes.
    every: u64,
    /// Nanoseconds in which an empty bucket fills up.
    whole: u64,
}

/// A bucket of tokens; a call takes one.
///
/// It is one number, after the generic cell rate algorithm: the time at which it will be full again,
/// in nanoseconds of the clock that its user keeps. A bucket whose time has passed is full.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Rate {
    /// `rate` tokens a second, at most `burst` at once; both at least 1.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let every = 1_000_000_000 / u64::from(rate.max(1));
        Self { every, whole: every * u64::from(burst.max(1)) }
    }
}

impl Bucket {
    /// Takes a token at `now`.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub(super) fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let one_less = |full: u64| {
            let full = full.max(now) + rate.every;
            (full <= now + rate.whole).then_some(full)
        };
        match self.0.fetch_update(Relaxed, Relaxed, one_less) {
            Ok(_) => Ok(()),
            Err(full) => {
                Err(Duration::from_nanos((full + rate.every).saturating_sub(now + rate.whole)))
            }
        }
    }

    fn is_full(&self, now: u64) -> bool {
        self.0.load(Relaxed) <= now
    }
}

/// A bucket for each caller or method, of which there may be any number: who finds no place shares
/// one bucket with all others that find none.
#[derive(Debug)]
pub(super) struct Buckets {
    places: Box<[Place]>,
    rest: Bucket,
    hash: RandomState,
}

/// A bucket, and the hash of whose it is; 0 when it was never anyone's.
#[derive(Debug, Default)]
struct Place {
    owner: AtomicU64,
    bucket: Bucket,
}

impl Buckets {
    pub(super) fn new() -> Self {
        let places = (0..PLACES).map(|_| Place::default()).collect();
        Self { places, rest: Bucket::default(), hash: RandomState::default() }
    }

    /// The bucket of `owner`: its own, or a place that is free at `now`.
    ///
    /// Two callers that take the same place at the same moment share it for one bucketful; no more
    /// can go wrong here, so nothing is locked.
    pub(super) fn of(&self, owner: &[u8], now: u64) -> &Bucket {
        let hash = self.hash.hash_one(owner).max(1);
        let places = || {
            let first = hash as usize;
            (0..PROBES).map(move |probe| &self.places[first.wrapping_add(probe) % PLACES])
        };
        if let Some(own) = places().find(|place| place.owner.load(Relaxed) == hash) {
            return &own.bucket;
        }
        match places().find(|place| place.bucket.is_full(now)) {
            Some(free) => {
                free.owner.store(hash, Relaxed);
                &free.bucket
            }
            None => &self.rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `calls` at `now` are let through.
    fn passed(bucket: &Bucket, rate: Rate, now: u64, calls: usize) -> usize {
        (0..calls).filter(|_| bucket.take(rate, now).is_ok()).count()
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 5));
        let start = 1_000 * SECOND;
        assert_eq!(passed(&bucket, rate, start, 100), 5);
        for tenth in 1..=50 {
            assert_eq!(passed(&bucket, rate, start + tenth * SECOND / 10, 3), 1, "{tenth}");
        }
        assert_eq!(passed(&bucket, rate, start + 3_600 * SECOND, 100), 5, "no more after a pause");
    }

    #[test]
    fn the_wait_that_is_told_is_exactly_long_enough() {
        let (bucket, rate) = (Bucket::default(), Rate::new(7, 3));
        let mut now = SECOND;
        passed(&bucket, rate, now, 3);
        for _ in 0..100 {
            now += fastrand::u64(..SECOND / 20);
            if let Err(wait) = bucket.take(rate, now) {
                let wait = u64::try_from(wait.as_nanos()).unwrap();
                assert!(wait <= SECOND / 7);
                assert!(bucket.take(rate, now + wait - 1).is_err());
                now += wait;
                assert!(bucket.take(rate, now).is_ok());
            }
        }
    }

    #[test]
    fn over_any_time_no_more_than_burst_and_rate_are_let_through() {
        fastrand::seed(3);
        let (bucket, rate) = (Bucket::default(), Rate::new(1_000, 20));
        let (mut now, mut count) = (0, 0);
        while now < 10 * SECOND {
            now += fastrand::u64(..SECOND / 2_000);
            count += usize::from(bucket.take(rate, now).is_ok());
        }
        assert!((10_000..=10_021).contains(&count), "{count}");
    }

    #[test]
    fn each_caller_has_a_bucket_of_its_own_and_new_ones_find_place_when_old_ones_pause() {
        let (buckets, rate) = (Buckets::new(), Rate::new(1, 2));
        for round in 0..20 {
            let now = (1 + round * 100) * SECOND;
            // So few that none has to share for want of a place; hashes are not the same in each run.
            for caller in 0..500 {
                let caller = format!("{round}-{caller}");
                let bucket = || buckets.of(caller.as_bytes(), now);
                assert_eq!(passed(bucket(), rate, now, 1), 1);
                assert_eq!(passed(bucket(), rate, now, 5), 1, "the second time the same bucket");
            }
        }
    }

    #[test]
    fn callers_beyond_all_places_share_one_bucket_and_take_no_memory() {
        let (buckets, rate) = (Buckets::new(), Rate::new(1, 1));
        let callers = 0..20 * PLACES;
        let passed = callers.filter(|caller| {
            buckets.of(caller.to_string().as_bytes(), SECOND).take(rate, SECOND).is_ok()
        });
        assert!(passed.count() <= PLACES + 1);
    }
}
