//! Whether an endpoint fails more of its calls than its siblings do, and not by chance.
//!
//! Each look adds the calls that have ended since the one before. From the moment at which an endpoint
//! fails more than it may, its calls are collected and compared with those of its siblings, by the
//! likelihood ratio of "it is worse" to "all are alike" (the G-test):
//!
//! - with those of the last `interval`, which are many: [`CERTAIN`] against chance;
//! - with those of the very same time, in which a failure that all share shows at once: [`LIKELY`].
//!
//! So thin traffic needs longer than heavy traffic, instead of a number of calls that would be wrong
//! for both, and a database that fails everybody's calls ejects nobody.

/// Logarithm of the odds against chance, compared with the siblings' last `interval`: a million to
/// one. Looks come four times a second, and about as many endpoints may be wrongly ejected.
const CERTAIN: f64 = 14.0;
/// The same, compared with the same time: a thousand to one.
const LIKELY: f64 = 7.0;
/// Fewest failures that are evidence.
const FEWEST: f64 = 5.0;

/// Calls, and those of them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) calls: f64,
    pub(super) failures: f64,
}

/// What has come together against one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    own: Sample,
    /// Of its siblings, in the same time.
    others: Sample,
}

impl Sample {
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
    }

    pub(super) fn less(self, other: Self) -> Self {
        let calls = (self.calls - other.calls).max(0.0);
        Self { calls, failures: (self.failures - other.failures).clamp(0.0, calls) }
    }

    /// As it counts when a part of it is forgotten.
    pub(super) fn faded(self, part: f64) -> Self {
        Self { calls: self.calls * part, failures: self.failures * part }
    }

    /// Share that failed; 0 of no calls.
    pub(super) fn rate(self) -> f64 {
        if self.calls > 0.0 { self.failures / self.calls } else { 0.0 }
    }

    /// Logarithm of how much more likely it is if its rate is its own than if it is `rate`.
    fn surprise(self, rate: f64) -> f64 {
        let term = |count: f64, share: f64, expected: f64| match count > 0.0 {
            true => count * (share / expected).ln(),
            false => 0.0,
        };
        let (own, works) = (self.rate(), self.calls - self.failures);
        term(self.failures, own, rate) + term(works, 1.0 - own, 1.0 - rate)
    }
}

impl Evidence {
    /// Takes in what has ended since the last look: of the endpoint, and of its siblings. `usual` is
    /// what has ended of the siblings in the last `interval`, that included. Whether the endpoint is
    /// worse, by `excess` or as much again.
    pub(super) fn weigh(
        &mut self,
        own: Sample,
        others: Sample,
        usual: Sample,
        excess: f64,
    ) -> bool {
        self.own.add(own);
        self.others.add(others);
        // Half way between as good and worse, so that one which is worse is found in the end.
        let may = |rate: f64| rate + rate.max(excess) / 2.0;
        if self.own.rate() <= may(usual.rate()) {
            *self = Self::default();
            return false;
        }
        self.own.failures >= FEWEST
            && self.own.rate() > may(self.others.rate())
            && odds(self.own, usual) > CERTAIN
            && odds(self.own, self.others) > LIKELY
    }

    /// Share of the endpoint's calls that failed, and of its siblings', for people.
    pub(super) fn rates(&self) -> (f64, f64) {
        (self.own.rate(), self.others.rate())
    }
}

/// Logarithm of how much more likely both samples are if each has a rate of its own.
fn odds(one: Sample, other: Sample) -> f64 {
    let mut both = one;
    both.add(other);
    one.surprise(both.rate()) + other.surprise(both.rate())
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const LOOKS_PER_SECOND: f64 = 4.0;
    const EXCESS: f64 = 0.05;

    /// Endpoints with as many calls each, whose looks go as those of a ward.
    struct Service {
        rng: Rng,
        calls: f64,
        recent: Vec<Sample>,
        evidence: Vec<Evidence>,
    }

    impl Service {
        fn new(seed: u64, endpoints: usize, calls_per_second: f64) -> Self {
            let calls = calls_per_second / LOOKS_PER_SECOND;
            let (recent, evidence) = (vec![Sample::default(); endpoints], Vec::new());
            let mut service = Self { rng: Rng::with_seed(seed), calls, recent, evidence };
            service.evidence.resize_with(endpoints, Evidence::default);
            service
        }

        fn draw(&mut self, rate: f64) -> Sample {
            // As many calls on average, in whole numbers.
            let calls = (self.calls * 2.0 * self.rng.f64()).round() as usize;
            let failures = (0..calls).filter(|_| self.rng.f64() < rate).count();
            Sample { calls: calls as f64, failures: failures as f64 }
        }

        /// One look, at endpoints with these rates of failure: the ones that are found worse.
        fn look(&mut self, rates: impl Fn(usize) -> f64) -> Vec<usize> {
            let sum = |samples: &[Sample]| {
                samples.iter().fold(Sample::default(), |mut sum, sample| {
                    sum.add(*sample);
                    sum
                })
            };
            let new: Vec<_> = (0..self.recent.len()).map(|at| self.draw(rates(at))).collect();
            let part = (-1.0 / LOOKS_PER_SECOND / 10.0_f64).exp();
            for (recent, new) in self.recent.iter_mut().zip(&new) {
                *recent = recent.faded(part);
                recent.add(*new);
            }
            let (all, usual) = (sum(&new), sum(&self.recent));
            let found = self.evidence.iter_mut().enumerate().filter_map(|(at, evidence)| {
                let (others, usual) = (all.less(new[at]), usual.less(self.recent[at]));
                evidence.weigh(new[at], others, usual, EXCESS).then_some(at)
            });
            found.collect()
        }

        fn seconds(&mut self, seconds: f64, rates: impl Fn(usize) -> f64) -> usize {
            let looks = (seconds * LOOKS_PER_SECOND) as usize;
            (0..looks).map(|_| self.look(&rates).len()).sum()
        }
    }

    #[test]
    fn in_hours_of_equal_endpoints_none_is_found_worse() {
        let mut hours = 0.0;
        for (seed, rate) in (0..).zip([0.002, 0.01, 0.05, 0.2, 0.5]) {
            for (endpoints, calls) in [(2, 20.0), (3, 5.0), (3, 50.0), (10, 20.0), (30, 2.0)] {
                let mut service = Service::new(seed, endpoints, calls);
                assert_eq!(service.seconds(600.0, |_| rate), 0, "{rate} {endpoints} {calls}");
                hours += endpoints as f64 / 6.0;
            }
        }
        assert!(hours > 30.0);
    }

    #[test]
    fn when_all_begin_to_fail_nearly_none_is_found_worse() {
        let mut found = 0;
        for (seed, rate) in (0..300).zip([0.1, 0.3, 0.6].into_iter().cycle()) {
            let mut service = Service::new(seed, 2, 50.0);
            service.seconds(10.0, |_| 0.0);
            found += usize::from(service.seconds(20.0, |_| rate) > 0);
        }
        assert!(found <= 6, "{found} of 300 times");
    }

    #[test]
    fn one_that_fails_a_tenth_is_found_within_two_seconds_of_load_and_no_other() {
        let mut times = Vec::new();
        for seed in 0..100 {
            let mut service = Service::new(seed, 3, 100.0);
            assert_eq!(service.seconds(20.0, |_| 0.001), 0);
            let mut looks = 0;
            loop {
                looks += 1;
                let found = service.look(|at| if at == 1 { 0.1 } else { 0.001 });
                assert!(found.iter().all(|&at| at == 1));
                if !found.is_empty() {
                    break;
                }
            }
            times.push(f64::from(looks) / LOOKS_PER_SECOND);
        }
        times.sort_by(f64::total_cmp);
        assert!(times[50] <= 1.0 && times[95] <= 2.0, "{times:?}");
    }

    #[test]
    fn two_sick_ones_of_five_are_found_and_one_that_is_a_little_worse_is_not() {
        let mut service = Service::new(1, 5, 50.0);
        service.seconds(10.0, |_| 0.0);
        let found: std::collections::BTreeSet<_> =
            (0..20).flat_map(|_| service.look(|at| if at < 2 { 0.5 } else { 0.0 })).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 1]);
        let mut service = Service::new(2, 3, 50.0);
        assert_eq!(service.seconds(300.0, |at| if at == 0 { 0.02 } else { 0.01 }), 0);
    }
}
