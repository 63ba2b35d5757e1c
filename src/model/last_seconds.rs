//! What has happened in the last ten seconds, counted by all workers together.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Seconds that are remembered, the current one included.
const SECONDS: u64 = 10;

/// Counts events by the second in which they happen. Counts are exact, whatever number of threads adds
/// to them; the oldest second drops out whole.
#[derive(Debug, Default)]
pub struct LastSeconds {
    /// A second in the upper half, its count in the lower; by the second, modulo their number.
    slots: [AtomicU64; SECONDS as usize],
}

impl LastSeconds {
    /// Counts one event at `now`.
    pub fn add(&self, now: Instant) {
        let second = second(now);
        let slot = &self.slots[(second % SECONDS) as usize];
        let one_more = |before: u64| {
            let count = if before >> 32 == second { before & COUNT } else { 0 };
            Some(second << 32 | (count + 1).min(COUNT))
        };
        // It never says no.
        let _ = slot.fetch_update(Relaxed, Relaxed, one_more);
    }

    /// Events in the ten seconds up to `now`.
    pub fn recent(&self, now: Instant) -> u64 {
        let second = second(now);
        let counts = self.slots.iter().map(|slot| slot.load(Relaxed));
        let recent = counts.filter(|slot| second.saturating_sub(slot >> 32) < SECONDS);
        recent.map(|slot| slot & COUNT).sum()
    }

    /// Events in the second of `now`.
    pub fn this_second(&self, now: Instant) -> u64 {
        let second = second(now);
        let slot = self.slots[(second % SECONDS) as usize].load(Relaxed);
        if slot >> 32 == second { slot & COUNT } else { 0 }
    }
}

const COUNT: u64 = u32::MAX as u64;

/// Seconds since some moment before the first look at a clock; from 1, so that an empty slot is of no
/// second that is asked for.
fn second(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    now.saturating_duration_since(*START).as_secs() + SECONDS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ten_seconds_are_remembered_and_no_more() {
        let events = LastSeconds::default();
        // Begun, so that the seconds of this test begin with it.
        let start = Instant::now() + Duration::from_secs(100);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((events.recent(start), events.this_second(start)), (0, 0));
        for seconds in 0..30 {
            for _ in 0..=seconds {
                events.add(at(seconds));
            }
        }
        assert_eq!(events.this_second(at(29)), 30);
        assert_eq!(events.recent(at(29)), (21..=30).sum::<u64>());
        assert_eq!((events.recent(at(38)), events.recent(at(39))), (30, 0));
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let (events, now) = (LastSeconds::default(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| events.add(now)));
            }
        });
        assert_eq!(events.recent(now), 4_000);
    }
}
