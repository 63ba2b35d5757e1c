//! How often the sources may be asked whether what cannot be connected is still registered.
//!
//! An instance that crashed stays registered until its lease runs out, and everybody who calls it
//! notices: were each one to ask as often as it may, the fleet would be a load on the registry just
//! when it has the most to do.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::backoff::jitter;
use crate::model::ServiceName;

use super::timing::MAX_DOUBTED;

/// The services that were in doubt lately.
#[derive(Debug)]
pub(super) struct Doubts {
    /// Least time between two checks of one service; doubles with each that follows the one before.
    first: Duration,
    checked: HashMap<ServiceName, Checked>,
}

#[derive(Debug)]
struct Checked {
    at: Instant,
    /// Before this time it is not checked again.
    wait: Duration,
}

impl Doubts {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, checked: HashMap::new() }
    }

    /// Whether a service may be checked now; if so, that counts as done.
    pub(super) fn may_check(&mut self, name: &ServiceName, now: Instant) -> bool {
        let wait = match self.checked.get(name) {
            Some(checked) if now - checked.at < checked.wait => return false,
            Some(checked) => 2 * checked.wait,
            None if self.checked.len() >= MAX_DOUBTED => return false,
            None => self.first,
        };
        self.checked.insert(name.clone(), Checked { at: now, wait: jitter(wait) });
        true
    }

    /// Forgets services that have not been in doubt for as long as they had to wait, and half of that
    /// again.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.checked.retain(|_, checked| now - checked.at < 3 * checked.wait / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_stays_in_doubt_is_checked_ever_more_rarely() {
        let mut doubts = Doubts::new(Duration::from_secs(5));
        let name: ServiceName = "orders".parse().unwrap();
        let start = Instant::now();
        let mut checks = Vec::new();
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            if doubts.may_check(&name, now) {
                checks.push(second);
            }
            doubts.sweep(now);
        }
        let waits: Vec<_> = checks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((4..=6).contains(&waits[0]), "{waits:?}");
        assert!(waits.is_sorted() && (5..=8).contains(&waits.len()), "{waits:?}");
        doubts.sweep(start + Duration::from_secs(2000));
        assert!(doubts.may_check(&name, start + Duration::from_secs(2000)));
        assert!(!doubts.may_check(&name, start + Duration::from_secs(2004)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_services_are_checked_at_a_time() {
        let mut doubts = Doubts::new(Duration::from_secs(5));
        let now = Instant::now();
        let mut check = |n: usize| doubts.may_check(&format!("s{n}").parse().unwrap(), now);
        assert!((0..MAX_DOUBTED).all(&mut check));
        assert!(!check(MAX_DOUBTED));
        doubts.sweep(now + Duration::from_secs(10));
        assert!(doubts.may_check(&"other".parse().unwrap(), now + Duration::from_secs(10)));
    }
}
