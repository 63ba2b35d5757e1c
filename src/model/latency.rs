//! How long an endpoint takes to answer.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What an endpoint that has never answered is taken to need after an attempt in vain: little, for it
/// doubles with each failure.
const FAILED: f32 = 0.01;
/// Failures make nothing slower than this.
const SLOWEST: f32 = 1.0;

/// Exponentially weighted mean of the time to an answer, quick to rise: a sample above the mean
/// becomes the mean, one below pulls it down by its weight `1 - exp(-age / decay)`, where age is the
/// time since the sample before (Finagle's `PeakEwma`). Shared by all workers.
///
/// Reads and samples are one load and at most one exchange of 64 bits. A sample that comes within a
/// millisecond of the last one, or at the same moment as another, is left out if it is no peak; of
/// thousands a second, none is missed.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

/// The mean and when it was last renewed.
#[derive(Clone, Copy)]
struct Mean {
    /// Milliseconds since the program first asked, as far as 32 bits go: what is older than 25 days
    /// looks new.
    at: u32,
    /// Seconds; 0 where nothing is known.
    seconds: f32,
}

impl Latency {
    /// Mean in seconds, as it has faded by `now`, so that an endpoint that was slow is tried again.
    /// None before anything is known.
    pub fn read(&self, now: Instant, decay: Duration) -> Option<f64> {
        let mean = Mean::of(self.0.load(Relaxed));
        (mean.seconds > 0.0).then(|| f64::from(mean.seconds * mean.weight(millis(now), decay)))
    }

    /// Takes in an answer that took so long.
    pub fn answered(&self, took: Duration, now: Instant, decay: Duration) {
        let (now, sample) = (millis(now), seconds(took));
        self.update(|mean| {
            if sample > mean.seconds {
                return Some(Mean { at: now, seconds: sample });
            }
            let weight = mean.weight(now, decay);
            let seconds = mean.seconds * weight + sample * (1.0 - weight);
            (mean.at != now).then_some(Mean { at: now, seconds })
        });
    }

    /// Takes in an attempt that failed after so long: however fast that was, the endpoint does not
    /// look fast by it but twice as slow, up to a second.
    pub fn failed(&self, took: Duration, now: Instant) {
        let (now, sample) = (millis(now), seconds(took));
        self.update(|mean| {
            let slower = (2.0 * mean.seconds).clamp(FAILED, SLOWEST);
            let seconds = mean.seconds.max(slower).max(sample);
            Some(Mean { at: now, seconds })
        });
    }

    /// Takes in an attempt that nobody waited for any longer than this: it would have taken more.
    pub fn given_up(&self, took: Duration, now: Instant) {
        let (now, sample) = (millis(now), seconds(took));
        self.update(|mean| {
            let sample = if mean.seconds > 0.0 { sample } else { sample.max(FAILED) };
            (sample > mean.seconds).then_some(Mean { at: now, seconds: sample })
        });
    }

    fn update(&self, next: impl Fn(Mean) -> Option<Mean>) {
        // Several tries, so that a peak is not lost because another sample came at the same time.
        for _ in 0..4 {
            let before = self.0.load(Relaxed);
            let Some(mean) = next(Mean::of(before)) else { return };
            if self.0.compare_exchange(before, mean.bits(), Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }
}

impl Mean {
    fn of(bits: u64) -> Self {
        Self { at: (bits >> 32) as u32, seconds: f32::from_bits(bits as u32) }
    }

    fn bits(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.seconds.to_bits())
    }

    /// What is left of it at `now`, 0 to 1.
    fn weight(self, now: u32, decay: Duration) -> f32 {
        // A clock that another worker read a moment later is not 49 days old.
        let age = (now.wrapping_sub(self.at) as i32).max(0) as f32 / 1000.0;
        (-age / decay.as_secs_f32()).exp()
    }
}

fn millis(now: Instant) -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    now.saturating_duration_since(*START).as_millis() as u32
}

/// No answer is faster than a nanosecond: 0 stands for unknown.
fn seconds(took: Duration) -> f32 {
    took.as_secs_f32().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Mean in milliseconds.
    fn read(latency: &Latency, now: Instant) -> f64 {
        (latency.read(now, DECAY).unwrap() * 1e3 * 10.0).round() / 10.0
    }

    #[test]
    fn nothing_is_known_of_an_endpoint_that_has_not_answered() {
        assert_eq!(Latency::default().read(Instant::now(), DECAY), None);
    }

    #[test]
    fn a_peak_counts_at_once_and_lower_samples_pull_it_down_by_and_by() {
        let (latency, start) = (Latency::default(), Instant::now() + ms(1000));
        latency.answered(ms(10), start, DECAY);
        latency.answered(ms(100), start, DECAY);
        assert_eq!(read(&latency, start), 100.0);
        latency.answered(ms(10), start + DECAY, DECAY);
        assert_eq!(read(&latency, start + DECAY), 43.1);
        for second in 1..=60 {
            latency.answered(ms(10), start + DECAY + ms(1000 * second), DECAY);
        }
        assert_eq!(read(&latency, start + DECAY + ms(60_000)), 10.1);
    }

    #[test]
    fn what_is_not_renewed_fades() {
        let (latency, start) = (Latency::default(), Instant::now() + ms(1000));
        latency.answered(ms(100), start, DECAY);
        assert_eq!(read(&latency, start + DECAY), 36.8);
        assert_eq!(read(&latency, start + 7 * DECAY), 0.1);
        assert_eq!(read(&latency, start - ms(10)), 100.0);
    }

    #[test]
    fn a_failure_never_makes_an_endpoint_look_faster() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.failed(ms(0), start);
        assert_eq!(read(&latency, start), 10.0);
        for expected in [20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1000.0, 1000.0] {
            latency.failed(ms(1), start);
            assert_eq!(read(&latency, start), expected);
        }
        latency.failed(ms(3000), start);
        assert_eq!(read(&latency, start), 3000.0);
        latency.failed(ms(1), start);
        assert_eq!(read(&latency, start), 3000.0);
    }

    #[test]
    fn what_was_given_up_took_at_least_so_long() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.given_up(ms(0), start);
        assert_eq!(read(&latency, start), 10.0);
        latency.given_up(ms(50), start);
        assert_eq!(read(&latency, start), 50.0);
        latency.given_up(ms(20), start);
        assert_eq!(read(&latency, start), 50.0);
    }
}
