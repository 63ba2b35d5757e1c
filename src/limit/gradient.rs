//! How many calls a service takes well, judged by how long it takes for them.
//!
//! After Gradient2 of Netflix's concurrency-limits and the gradient controller of Envoy: compare the
//! latency now with the usual one, and let the limit shrink by the ratio. Two things differ. What is
//! usual is learned only while calls are few, or the limit is as low as it gets: latency under load
//! says how long the queue is, not how long the work takes, and a limit that learns from it drifts up
//! with every hour of overload. And the limit opens fast, to twice the calls there are, while these are as
//! quick as usual: a proxy that has seen no trouble has no reason to refuse a call.

/// Limit to start with, and to come back to while there are few calls.
pub(super) const FIRST: u32 = 100;
/// Lowest limit: so many calls tell how long the work takes, and no service is cut off for good.
const FLOOR: f64 = 4.0;
/// Highest limit; it only grows while calls make use of half of it.
const CEILING: f64 = 1e6;
/// By how much latency may exceed the usual one before the limit shrinks.
const TOLERANCE: f64 = 2.0;
/// By how much it may exceed it and still be the usual one.
const SAME: f64 = 1.25;
/// How much of the way to a lower limit is gone at once: one slow window does not count for much.
const SHRINK: f64 = 0.5;
/// The same for a limit that is not made use of, and how many times the calls it comes down to. Left
/// where it is, it would be no limit when calls pile up.
const UNUSED: f64 = 0.1;
const SPARE: f64 = 1.5;
/// Weight of a window in what is usual: when it was slower, faster, and while that is learned anew.
const SLOWER: f64 = 0.05;
const FASTER: f64 = 0.2;
const ANEW: f64 = 0.2;
/// Latency of half as many calls, relative to the highest before, that shows that it helped.
const HELPED: f64 = 0.7;

/// What was seen in a window of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Mean time until an answer began, in seconds.
    pub(super) latency: f64,
    /// Most calls that any of those answered met when it came, itself included.
    pub(super) most: u32,
}

/// The limit of one service, and what it is worked out from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// Usual latency in seconds; none before the first window.
    usual: Option<f64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Calls are about as fast as usual.
    Open,
    /// Calls are slow, and the limit is coming down: from `limit`, where latency was up to `latency`.
    Closing { limit: f64, latency: f64 },
    /// Half as many calls are as slow: it is not because of them. What is usual is learned anew.
    Learning,
}

impl Gradient {
    /// Nothing known.
    pub(super) const fn new() -> Self {
        Self { limit: FIRST as f64, usual: None, phase: Phase::Open }
    }

    /// The limit after a window.
    pub(super) fn after(&mut self, window: Window) -> u32 {
        let (latency, most) = (window.latency, f64::from(window.most));
        let usual = *self.usual.get_or_insert(latency);
        let loaded = most * 2.0 > self.limit;
        let weight = match self.phase {
            _ if latency < usual => FASTER,
            Phase::Learning => ANEW,
            _ if loaded => 0.0,
            _ => SLOWER,
        };
        self.usual = Some(usual + weight * (latency - usual));
        if loaded {
            self.look(latency, latency / usual);
            self.limit = self.next(most, latency / usual).clamp(FLOOR, CEILING);
        } else {
            let enough = (most * SPARE).max(FIRST.into()).min(self.limit);
            self.limit += UNUSED * (enough - self.limit);
        }
        self.limit as u32
    }

    /// Whether it helps to let fewer calls through.
    fn look(&mut self, latency: f64, slowness: f64) {
        self.phase = match self.phase {
            _ if slowness <= SAME => Phase::Open,
            Phase::Open if slowness > TOLERANCE => Phase::Closing { limit: self.limit, latency },
            Phase::Closing { limit, latency: highest } => {
                let highest = highest.max(latency);
                let fewer = self.limit <= limit / 2.0 || self.limit < FLOOR + 1.0;
                match fewer && slowness > TOLERANCE {
                    true if latency > highest * HELPED => Phase::Learning,
                    true => Phase::Closing { limit: self.limit, latency },
                    false => Phase::Closing { limit, latency: highest },
                }
            }
            phase => phase,
        };
    }

    /// Up while calls are about as fast as usual, else down by the ratio. The square root lets a short
    /// queue be, which keeps the service busy.
    fn next(&self, most: f64, slowness: f64) -> f64 {
        let wanted = self.limit * (TOLERANCE / slowness).clamp(0.5, 1.0) + self.limit.sqrt();
        match self.phase {
            Phase::Learning => self.limit,
            _ if slowness <= SAME => (most * 2.0).max(self.limit),
            _ if wanted < self.limit => self.limit + SHRINK * (wanted - self.limit),
            _ => wanted,
        }
    }

    /// Usual latency in seconds, once known.
    pub(super) const fn usual(&self) -> Option<f64> {
        self.usual
    }
}
