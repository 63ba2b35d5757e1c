//! Keeps the calls that wait for an answer to a number that follows the service's latency.
//!
//! What counts is a call from its first attempt to the first byte of its answer, both as one of those
//! that wait and for its latency: a stream that stays open for an hour is no load and no slow answer.

use std::{
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Counter, Permit,
    gradient::{FIRST, Gradient, Window},
};

/// Shortest window of samples, in nanoseconds.
const WINDOW: u64 = 250_000_000;
/// The same, in latencies: in a shorter one the quick answers would be seen first, and most.
const LATENCIES: u64 = 2;
/// Fewest samples in a window, since the mean of few says little,
const SAMPLES: u64 = 25;
/// unless they take longer than this to come, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// The adaptive limit of one service. Recording adds to atomics; the one call that ends a window works
/// the next limit out.
#[derive(Debug)]
pub(super) struct Adaptive {
    waiting: Counter,
    limit: AtomicU32,
    /// Usual latency in nanoseconds, 0 before it is known.
    usual: AtomicU64,
    began: AtomicU64,
    samples: AtomicU64,
    /// Of the latencies, in nanoseconds.
    sum: AtomicU64,
    most: AtomicU32,
    rule: Mutex<Gradient>,
}

/// A place of a call that waits.
#[derive(Debug)]
pub(super) struct Place {
    /// Calls that waited when it came, itself included.
    beside: u32,
    _permit: Permit,
}

impl Adaptive {
    pub(super) fn new() -> Self {
        Self {
            waiting: Counter::default(),
            limit: FIRST.into(),
            usual: AtomicU64::new(0),
            began: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            most: AtomicU32::new(0),
            rule: Mutex::new(Gradient::new()),
        }
    }

    /// Most calls that may wait now.
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Lets a call wait, if there is a place.
    pub(super) fn enter(&self) -> Option<Place> {
        let permit = self.waiting.enter(self.limit())?;
        Some(Place { beside: self.waiting.now(), _permit: permit })
    }

    /// An answer began at `now`, in nanoseconds of a clock that its caller keeps. The new limit, if this
    /// ended a window.
    pub(super) fn answered(&self, place: &Place, now: u64, took: Duration) -> Option<u32> {
        let sum = self.sum.fetch_add(nanos(took), Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(place.beside, Relaxed);
        let began = self.began.load(Relaxed);
        if began == 0 {
            self.began.store(now, Relaxed);
            return None;
        }
        let passed = now.saturating_sub(began);
        let enough = samples >= SAMPLES && passed >= sum / samples * LATENCIES;
        let over = passed >= LONGEST || (passed >= WINDOW && enough);
        if over { self.end_window(now) } else { None }
    }

    /// A call was given up before an answer began. It would have taken longer still: that says
    /// something only where it has taken longer than usual already.
    pub(super) fn given_up(&self, place: &Place, now: u64, took: Duration) -> Option<u32> {
        let usual = self.usual.load(Relaxed);
        if usual > 0 && nanos(took) > usual { self.answered(place, now, took) } else { None }
    }

    /// Whoever finds another at it leaves it to them.
    fn end_window(&self, now: u64) -> Option<u32> {
        let mut rule = match self.rule.try_lock() {
            Ok(rule) => rule,
            // Whoever panicked at it has not left it half done: it is a few numbers.
            Err(TryLockError::Poisoned(rule)) => rule.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let samples = self.samples.swap(0, Relaxed);
        let sum = self.sum.swap(0, Relaxed);
        let most = self.most.swap(0, Relaxed);
        self.began.store(now, Relaxed);
        if samples == 0 {
            return None;
        }
        let latency = sum as f64 / samples as f64 / 1e9;
        let limit = rule.after(Window { latency, most });
        self.usual.store(rule.usual().map_or(0, |usual| (usual * 1e9) as u64), Relaxed);
        self.limit.store(limit, Relaxed);
        Some(limit)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        cmp::Reverse,
        collections::{BTreeMap, BinaryHeap},
    };

    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;

    /// A service that works on `workers` calls at once, first come first served, for an exponentially
    /// distributed time each; calls come at random, as many a second as asked for.
    struct Simulation {
        limit: Adaptive,
        now: u64,
        /// When each worker is free.
        free: BinaryHeap<Reverse<u64>>,
        /// Calls under way, by when they are answered and when they came.
        answers: BTreeMap<(u64, u64), Place>,
    }

    /// What happened in a stretch of time.
    #[derive(Debug, Default)]
    struct Seen {
        refused: u64,
        answered: u64,
        latency: f64,
    }

    impl Simulation {
        fn new(workers: usize) -> Self {
            fastrand::seed(11);
            let free = (0..workers).map(|_| Reverse(SECOND)).collect();
            Self { limit: Adaptive::new(), now: SECOND, free, answers: BTreeMap::new() }
        }

        /// `seconds` of `rate` calls a second, each `work` milliseconds of work on average.
        fn run(&mut self, seconds: u64, rate: f64, work: f64) -> Seen {
            let (mut seen, end) = (Seen::default(), self.now + seconds * SECOND);
            while self.now < end {
                self.now += exponential(1e9 / rate);
                self.answer(&mut seen);
                match self.limit.enter() {
                    Some(place) => self.work(place, exponential(work * MILLI as f64)),
                    None => seen.refused += 1,
                }
            }
            seen.latency /= seen.answered as f64;
            seen
        }

        fn work(&mut self, place: Place, work: u64) {
            let Reverse(free) = self.free.pop().unwrap();
            let answered = free.max(self.now) + work;
            self.free.push(Reverse(answered));
            self.answers.insert((answered, self.now), place);
        }

        fn answer(&mut self, seen: &mut Seen) {
            while let Some(first) = self.answers.first_entry()
                && first.key().0 <= self.now
            {
                let ((answered, came), place) = first.remove_entry();
                self.limit.answered(&place, answered, Duration::from_nanos(answered - came));
                seen.answered += 1;
                seen.latency += (answered - came) as f64 / MILLI as f64;
            }
        }
    }

    fn exponential(mean: f64) -> u64 {
        (-(1.0 - fastrand::f64()).ln() * mean) as u64
    }

    /// Twenty workers and ten milliseconds of work: 2 000 calls a second.
    const WORKERS: usize = 20;
    const WORK: f64 = 10.0;

    #[test]
    fn a_service_that_copes_is_refused_nothing() {
        let mut service = Simulation::new(WORKERS);
        for rate in [100.0, 1_000.0, 1_800.0] {
            let seen = service.run(10, rate, WORK);
            assert_eq!(seen.refused, 0, "{rate}: {seen:?}");
        }
    }

    #[test]
    fn under_three_times_its_load_a_service_stays_busy_and_its_answers_stay_quick_for_hours() {
        let mut service = Simulation::new(WORKERS);
        service.run(10, 1_000.0, WORK);
        service.run(10, 6_000.0, WORK);
        let first = service.run(10, 6_000.0, WORK);
        service.run(100, 6_000.0, WORK);
        let last = service.run(10, 6_000.0, WORK);
        for seen in [first, last] {
            assert!(seen.answered > 19_000, "{seen:?}");
            assert!(seen.latency < 3.5 * WORK, "{seen:?}");
        }
        let after = service.run(10, 1_000.0, WORK);
        assert!(after.refused < 10, "{after:?}");
    }

    #[test]
    fn the_limit_shrinks_when_a_service_slows_down_and_grows_when_it_recovers() {
        let mut service = Simulation::new(WORKERS);
        service.run(10, 1_000.0, WORK);
        let before = service.limit.limit();
        service.run(10, 1_000.0, 10.0 * WORK);
        assert!(service.limit.limit() <= 2 * WORKERS as u32, "{}", service.limit.limit());
        let slow = service.run(10, 1_000.0, 10.0 * WORK);
        assert!(slow.refused > 5_000, "{slow:?}");
        assert!(slow.answered > 1_200 && slow.latency < 35.0 * WORK, "{slow:?}");
        let (soon, later) = (service.run(5, 1_000.0, WORK), service.run(5, 1_000.0, WORK));
        assert!(soon.refused < 500 && later.refused == 0, "{before}: {soon:?} {later:?}");
    }

    #[test]
    fn a_service_that_has_become_slower_for_good_is_let_work_at_its_new_pace() {
        let mut service = Simulation::new(200);
        service.run(5, 10_000.0, WORK);
        let soon = service.run(10, 2_000.0, 8.0 * WORK);
        let later = service.run(10, 2_000.0, 8.0 * WORK);
        assert!(soon.refused < 5_000 && later.refused < 100, "{soon:?} {later:?}");
    }

    #[test]
    fn a_service_of_one_worker_is_not_cut_off() {
        let mut service = Simulation::new(1);
        service.run(10, 50.0, WORK);
        service.run(60, 300.0, WORK);
        let seen = service.run(60, 300.0, WORK);
        assert!(seen.answered > 5_500 && seen.latency < 10.0 * WORK, "{seen:?}");
    }

    #[test]
    fn calls_given_up_count_once_they_took_longer_than_usual() {
        let limit = Adaptive::new();
        for call in 0..200 {
            let place = limit.enter().unwrap();
            limit.answered(&place, SECOND + call * 10 * MILLI, Duration::from_millis(10));
        }
        let usual = limit.usual.load(Relaxed);
        assert_eq!(usual, 10 * MILLI);
        let samples = limit.samples.load(Relaxed);
        let early = limit.enter().unwrap();
        assert_eq!(limit.given_up(&early, 10 * SECOND, Duration::from_millis(5)), None);
        drop(early);
        assert_eq!(limit.samples.load(Relaxed), samples, "it was cancelled early");
        let waiting: Vec<_> = std::iter::from_fn(|| limit.enter()).collect();
        assert_eq!(waiting.len(), limit.limit() as usize);
        let begun = 10 * SECOND;
        for (call, place) in (0..).zip(&waiting) {
            limit.given_up(place, begun + call * 50 * MILLI, Duration::from_secs(1));
        }
        assert!(limit.limit() < FIRST, "{}", limit.limit());
    }
}
