//! Calls counted, up to a bound.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// How many calls there are now. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU32>);

/// A call that counts until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU32>);

impl Counter {
    /// Calls now.
    pub fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Counts one more, unless there are `most` already. Never more than `most` are counted at any
    /// time, whoever else counts at the same moment, and a call that is refused takes no place.
    pub fn enter(&self, most: u32) -> Option<Permit> {
        let one_more = |now: u32| (now < most).then_some(now + 1);
        self.0.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Permit(Arc::clone(&self.0)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound_are_counted_at_once_by_any_number_of_threads() {
        let (counter, seen) = (Counter::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(_permit) = counter.enter(3) {
                            seen.fetch_max(counter.now(), Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&seen.into_inner()));
        assert_eq!(counter.now(), 0);
        let held: Vec<_> = std::iter::from_fn(|| counter.enter(3)).collect();
        assert_eq!(held.len(), 3);
    }
}
