//! The shortest time of late: how long something takes at best.
//!
//! Owned by one worker's view of a service. `connect` notes what it saw, `deadline` asks whether what is
//! left of a call can be enough. A peer that has become slower is believed after two windows at most.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// How long a window is. What was noted counts for one window at least, and for two at most.
const WINDOW: Duration = Duration::from_secs(30);

/// The least duration noted in this window and in the one before.
#[derive(Debug, Default)]
pub struct Fastest(Cell<Option<Windows>>);

#[derive(Clone, Copy, Debug)]
struct Windows {
    began: Instant,
    current: Duration,
    before: Option<Duration>,
}

impl Fastest {
    /// Something took this long.
    pub fn note(&self, now: Instant, took: Duration) {
        let next = match self.0.get() {
            Some(windows) if windows.age(now) < WINDOW => {
                Windows { current: windows.current.min(took), ..windows }
            }
            Some(windows) => {
                let before = (windows.age(now) < 2 * WINDOW).then_some(windows.current);
                Windows { began: now, current: took, before }
            }
            None => Windows { began: now, current: took, before: None },
        };
        self.0.set(Some(next));
    }

    /// The least of late; none where nothing was noted for a while.
    pub fn get(&self, now: Instant) -> Option<Duration> {
        let windows = self.0.get()?;
        match windows.age(now) {
            age if age < WINDOW => {
                Some(windows.before.map_or(windows.current, |before| before.min(windows.current)))
            }
            age if age < 2 * WINDOW => Some(windows.current),
            _ => None,
        }
    }
}

impl Windows {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_known_before_the_first_note() {
        assert_eq!(Fastest::default().get(Instant::now()), None);
    }

    #[test]
    fn the_least_counts_whatever_comes_after() {
        let (fastest, now) = (Fastest::default(), Instant::now());
        for took in [ms(7), ms(3), ms(9)] {
            fastest.note(now, took);
        }
        assert_eq!(fastest.get(now + WINDOW / 2), Some(ms(3)));
    }

    #[test]
    fn a_peer_that_has_become_slower_is_believed_after_two_windows() {
        let (fastest, start) = (Fastest::default(), Instant::now());
        fastest.note(start, ms(3));
        fastest.note(start + WINDOW, ms(20));
        assert_eq!(fastest.get(start + WINDOW), Some(ms(3)), "the window before still counts");
        fastest.note(start + 2 * WINDOW, ms(25));
        assert_eq!(fastest.get(start + 2 * WINDOW), Some(ms(20)));
    }

    #[test]
    fn what_was_noted_long_ago_is_forgotten() {
        let (fastest, start) = (Fastest::default(), Instant::now());
        fastest.note(start, ms(3));
        assert_eq!(fastest.get(start + WINDOW), Some(ms(3)));
        assert_eq!(fastest.get(start + 2 * WINDOW), None);
        fastest.note(start + 3 * WINDOW, ms(9));
        assert_eq!(fastest.get(start + 3 * WINDOW), Some(ms(9)));
    }
}
