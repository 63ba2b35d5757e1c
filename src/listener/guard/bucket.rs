//! Counts what may happen so often in a while.

use std::time::Duration;

use tokio::time::Instant;

/// In this time a full bucket is empty again.
const WHILE: Duration = Duration::from_secs(10);

/// A bucket that leaks. The clock is only looked at when it is full, so that what stays within its
/// bounds costs an addition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: u32,
    /// What fits; 0 for any number.
    most: u32,
    leaked: Instant,
}

impl Bucket {
    /// A bucket for `most`, 0 for any number, that is empty at `now`.
    pub(super) const fn new(most: u32, now: Instant) -> Self {
        Self { level: 0, most, leaked: now }
    }

    /// Adds, and tells whether it has overflowed.
    pub(super) fn overflows(&mut self, more: u32, now: impl FnOnce() -> Instant) -> bool {
        if self.most == 0 {
            return false;
        }
        self.level = self.level.saturating_add(more);
        if self.level <= self.most {
            return false;
        }
        let now = now();
        let rested = now.saturating_duration_since(self.leaked).min(WHILE);
        let leaked = u64::from(self.most) * rested.as_millis() as u64 / WHILE.as_millis() as u64;
        // At most `most`, which is a u32.
        self.level = self.level.saturating_sub(leaked as u32);
        if leaked > 0 {
            self.leaked = now;
        }
        self.level > self.most
    }

    /// How much is in it, more or less: what has leaked is only known once it is full.
    pub(super) const fn level(&self) -> u32 {
        self.level
    }

    /// Takes out again.
    pub(super) const fn forgive(&mut self, less: u32) {
        self.level = self.level.saturating_sub(less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_many_as_fit_pass_and_one_more_does_not() {
        let mut bucket = Bucket::new(100, Instant::now());
        assert!(!(0..100).any(|_| bucket.overflows(1, Instant::now)));
        assert!(bucket.overflows(1, Instant::now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_never_fills_it() {
        let mut bucket = Bucket::new(100, Instant::now());
        for _ in 0..1000 {
            tokio::time::advance(Duration::from_millis(101)).await;
            assert!(!bucket.overflows(1, Instant::now));
        }
        tokio::time::advance(WHILE * 100).await;
        assert!((0..300).any(|_| bucket.overflows(1, Instant::now)), "a rest is no credit");
    }

    #[test]
    fn what_is_forgiven_does_not_count_and_zero_is_any_number() {
        let now = Instant::now();
        let mut bucket = Bucket::new(2, now);
        for _ in 0..100 {
            assert!(!bucket.overflows(2, || now));
            bucket.forgive(2);
        }
        let mut any = Bucket::new(0, now);
        assert!(!(0..1000).any(|_| any.overflows(u32::MAX, || now)));
    }
}
