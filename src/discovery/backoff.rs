//! How long to wait before trying again.

use std::time::Duration;

use super::Timing;

/// Waits that double from [`Timing::backoff`] to [`Timing::backoff_max`], each shortened by up to a
/// half at random, so that a fleet does not come back at once.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(timing: &Timing) -> Self {
        Self { first: timing.backoff, longest: timing.backoff_max, next: timing.backoff }
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Starts over: what failed has worked since.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `about`, 10 % more or less.
pub(super) fn jitter(about: Duration) -> Duration {
    about.mul_f64(0.9 + fastrand::f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_over_after_success() {
        let mut backoff = Backoff::new(&Timing::default());
        let mut full = Duration::from_millis(100);
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(wait > full / 2 - Duration::from_millis(1) && wait <= full, "{wait:?}");
            full = (full * 2).min(Duration::from_secs(10));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
