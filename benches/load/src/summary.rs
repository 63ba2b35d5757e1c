//! What a run came to: how many calls, what was wrong with some, and how long they took.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// One call that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its place in the order in which calls began, from 0.
    pub(crate) number: usize,
    /// How long after the time that it was meant for it began.
    pub(crate) late: Duration,
    /// From the time that it was meant for until its answer was whole, or it failed.
    pub(crate) time: Duration,
    /// What was wrong with the answer.
    pub(crate) wrong: Option<String>,
}

/// Times in microseconds, of all calls but those left out, failed ones included.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Calls made.
    pub(crate) calls: usize,
    /// Calls answered by 200, a body of the right length and `grpc-status: 0`.
    pub(crate) ok: usize,
    /// What was wrong with the others, and how often.
    pub(crate) wrong: BTreeMap<String, usize>,
    /// From the first call's beginning to the last one's end.
    pub(crate) seconds: f64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// How late this program itself was, at the 99th percentile.
    pub(crate) late_p99_us: f64,
}

impl Summary {
    /// Sums up calls, of which the first `skip` to begin count for no time.
    pub(crate) fn of(done: Vec<Done>, skip: usize, elapsed: Duration) -> Self {
        let calls = done.len();
        let (mut times, mut lateness) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
        let mut wrong = BTreeMap::new();
        for call in done {
            if call.number >= skip {
                times.push(micros(call.time));
                lateness.push(micros(call.late));
            }
            if let Some(reason) = call.wrong {
                *wrong.entry(reason).or_default() += 1;
            }
        }
        times.sort_unstable_by(f64::total_cmp);
        lateness.sort_unstable_by(f64::total_cmp);
        Self {
            calls,
            ok: calls - wrong.values().sum::<usize>(),
            wrong,
            seconds: elapsed.as_secs_f64(),
            mean_us: times.iter().sum::<f64>() / times.len().max(1) as f64,
            p50_us: percentile(&times, 0.5),
            p99_us: percentile(&times, 0.99),
            p999_us: percentile(&times, 0.999),
            max_us: percentile(&times, 1.0),
            late_p99_us: percentile(&lateness, 0.99),
        }
    }
}

/// The smallest of the ordered values that at least `share` (0 to 1) of them do not exceed.
fn percentile(ordered: &[f64], share: f64) -> f64 {
    let rank = (ordered.len() as f64 * share).ceil() as usize;
    ordered.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(number: usize, millis: u64, wrong: Option<&str>) -> Done {
        let time = Duration::from_millis(millis);
        Done { number, late: Duration::ZERO, time, wrong: wrong.map(str::to_owned) }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let calls = (1..=1000).map(|at| done(at, at as u64, None)).collect();
        let summary = Summary::of(calls, 0, Duration::from_secs(2));
        assert_eq!((summary.p50_us, summary.p99_us), (500e3, 990e3));
        assert_eq!((summary.p999_us, summary.max_us), (999e3, 1000e3));
        assert_eq!((summary.calls, summary.ok, summary.seconds), (1000, 1000, 2.0));
    }

    #[test]
    fn the_first_calls_to_begin_are_left_out_of_the_times_whenever_they_end() {
        let calls = vec![done(1, 5, None), done(2, 7, None), done(0, 9000, None)];
        let summary = Summary::of(calls, 1, Duration::from_secs(9));
        assert_eq!((summary.calls, summary.max_us, summary.mean_us), (3, 7e3, 6e3));
    }

    #[test]
    fn wrong_answers_are_counted_by_reason() {
        let calls = vec![done(0, 1, Some("a")), done(1, 1, Some("b")), done(2, 1, Some("a"))];
        let summary = Summary::of(calls, 0, Duration::from_secs(1));
        assert_eq!(summary.ok, 0);
        assert_eq!(
            summary.wrong.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), 2), ("b".to_owned(), 1)]
        );
    }
}
