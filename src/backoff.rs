//! How long to wait before trying again. Whoever tries again for ever uses this.

use std::time::Duration;

/// Waits that double from a first to a longest, each shortened by up to a half at random, so that a
/// fleet does not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Starts over: what failed has worked since.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `about`, 10 % more or less.
pub fn jitter(about: Duration) -> Duration {
    about.mul_f64(0.9 + fastrand::f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_over_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut full = Duration::from_millis(100);
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait > full / 2 - Duration::from_millis(1) && wait <= full, "{wait:?}");
            full = (full * 2).min(Duration::from_secs(10));
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
