//! How many further attempts a service gets: so few that they cannot make an outage worse.
//!
//! The counts are the service's, so all workers draw on one budget. What is proven unprocessed is tried
//! again without it, since no endpoint works on that; but a refusal after a refusal is paid for.

use std::time::Instant;

use crate::{config::Retry, model::Service};

/// Counts a call, of which the budget is a share.
pub fn call_began(service: &Service, now: Instant) {
    service.retriable.add(now);
}

/// Takes a further attempt out of the budget, if there is one left: of all calls of the last ten seconds
/// the share that `retry` says, but so many a second in any case.
///
/// Workers that ask at the very same moment may all get the last one.
pub fn take(service: &Service, retry: &Retry, now: Instant) -> bool {
    let left = service.retries.recent(now) < share(service, retry, now)
        || service.retries.this_second(now) < retry.budget_min_per_second.into();
    if left {
        spend(service, now);
    }
    left
}

/// Takes one that has been made already, left or not.
pub fn spend(service: &Service, now: Instant) {
    service.retries.add(now);
}

/// Whether nothing is left, of the share or of what there is in any case in ten seconds.
pub fn is_spent(service: &Service, retry: &Retry, now: Instant) -> bool {
    let least = 10 * u64::from(retry.budget_min_per_second);
    service.retries.recent(now) >= share(service, retry, now).max(least)
}

fn share(service: &Service, retry: &Retry, now: Instant) -> u64 {
    (retry.budget.get() / 100.0 * service.retriable.recent(now) as f64) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::Percent, model::Snapshot};

    fn service() -> Service {
        Service::new(Snapshot::empty("orders".parse().unwrap()))
    }

    fn retry(budget: f64, budget_min_per_second: u32) -> Retry {
        let budget = Percent::new(budget).unwrap();
        Retry { budget, budget_min_per_second, ..Retry::default() }
    }

    /// Further attempts of calls that all fail, one every `gap` from `start` on.
    fn outage(service: &Service, retry: &Retry, start: Instant, calls: u32, gap: Duration) -> u32 {
        let mut retries = 0;
        for call in 0..calls {
            let now = start + gap * call;
            call_began(service, now);
            while take(service, retry, now) && retries < 1_000_000 {
                retries += 1;
            }
        }
        retries
    }

    #[test]
    fn in_an_outage_a_fifth_of_the_calls_is_tried_again() {
        let (service, start) = (service(), Instant::now());
        let gap = Duration::from_millis(1);
        let retries = outage(&service, &retry(20.0, 3), start, 10_000, gap);
        assert!((1_990..=2_003).contains(&retries), "{retries}");
    }

    #[test]
    fn few_calls_have_their_attempts_each_second() {
        let (service, start) = (service(), Instant::now() + Duration::from_secs(1_000));
        let retries = outage(&service, &retry(0.0, 3), start, 20, Duration::from_millis(500));
        assert!((30..=33).contains(&retries), "{retries}");
        let none = outage(&service, &retry(0.0, 0), start, 20, Duration::from_millis(500));
        assert_eq!(none, 0);
    }

    #[test]
    fn what_was_not_used_is_gone_after_ten_seconds() {
        let (service, start) = (service(), Instant::now());
        let retry = retry(20.0, 0);
        (0..100).for_each(|_| call_began(&service, start));
        assert!(take(&service, &retry, start + Duration::from_secs(8)));
        assert!(!take(&service, &retry, start + Duration::from_secs(11)));
    }
}
