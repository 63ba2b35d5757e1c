//! What the calls of an endpoint have told of it.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// What the end of one attempt tells of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It answered as an endpoint does that works, for this gRPC service (see [`Served`]).
    Works(Served),
    /// It says that it could not: UNAVAILABLE, INTERNAL or UNKNOWN.
    Errs(Served),
    /// It could not be connected, refused, or broke off.
    Broke,
    /// Nobody waited for it any longer. Of one call that says nothing, for its caller may have been in
    /// a hurry; of many it does, where others are in time.
    Late,
    /// It does not know the gRPC service.
    Foreign(Served),
}

/// A gRPC service, such as `shop.v1.Orders`, as a hash: what a server knows as a whole, or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served(u32);

impl Served {
    /// Of the `:path` of a call.
    pub fn of_path(path: &str) -> Self {
        let service = path.rsplit_once('/').map_or(path, |(service, _)| service);
        // 0 stands for none.
        Self((super::stable_hash(service.as_bytes()) as u32).max(1))
    }
}

/// How often an attempt must fail in a row, of each kind, before somebody is told; 0 for never.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// [`Told::Broke`].
    pub broke: u32,
    /// [`Told::Errs`].
    pub errs: u32,
    /// [`Told::Foreign`].
    pub foreign: u32,
}

/// A kind of failures that has come as often in a row as [`Rows`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// [`Told::Broke`].
    Broke,
    /// [`Told::Errs`].
    Errs,
    /// [`Told::Foreign`].
    Foreign,
}

/// Counts of attempts that have ended, shared by all workers. To note one costs one addition and a
/// look, where the endpoint works.
#[derive(Debug, Default)]
pub struct History {
    /// Attempts, and those of them that failed; both wrap.
    attempts: AtomicU32,
    failures: AtomicU32,
    /// Failures in a row, in the lower half; above it, when the last one was that counted.
    broke: AtomicU64,
    errs: AtomicU32,
    /// Answers in a row that did not know a gRPC service, in the lower half; above it, which one.
    foreign: AtomicU64,
    /// The gRPC service that it last answered for; 0 for none.
    serves: AtomicU32,
}

/// What breaks within so many milliseconds counts once in a row: calls on one connection end together.
const AT_ONCE: u32 = 20;

impl History {
    /// Takes in the end of an attempt. Tells of the row that is complete by it. The clock is read
    /// only where it matters.
    pub fn note(&self, told: Told, rows: Rows, now: impl FnOnce() -> Instant) -> Option<Row> {
        self.attempts.fetch_add(1, Relaxed);
        match told {
            Told::Works(served) => {
                self.begin_rows();
                self.serves(served);
                return None;
            }
            Told::Foreign(served) => {
                set_if_other(&self.errs, 0);
                self.answered();
                let next = |row: u64| {
                    let count = if (row >> 32) as u32 == served.0 { row as u32 } else { 0 };
                    u64::from(served.0) << 32 | u64::from(count.saturating_add(1))
                };
                let count = next(update(&self.foreign, next)) as u32;
                // Told again when it is twice as long: a sibling may have answered since.
                let times = count.checked_div(rows.foreign).unwrap_or(0);
                let is_told = times.is_power_of_two() && count == times * rows.foreign;
                return is_told.then_some(Row::Foreign);
            }
            Told::Late | Told::Errs(_) | Told::Broke => {}
        }
        self.failures.fetch_add(1, Relaxed);
        match told {
            Told::Errs(served) => {
                self.answered();
                self.serves(served);
                let count = self.errs.fetch_add(1, Relaxed).wrapping_add(1);
                (count == rows.errs).then_some(Row::Errs)
            }
            Told::Broke => {
                let now = millis(now());
                let next = |row: u64| {
                    let (last, count) = ((row >> 32) as u32, row as u32);
                    match count > 0 && now.wrapping_sub(last) < AT_ONCE {
                        true => row,
                        false => u64::from(now) << 32 | u64::from(count.saturating_add(1)),
                    }
                };
                let before = update(&self.broke, next);
                let (before, count) = (before as u32, next(before) as u32);
                (count != before && count == rows.broke).then_some(Row::Broke)
            }
            _ => None,
        }
    }

    /// An answer has begun: the endpoint can be connected, and answers.
    pub fn answered(&self) {
        if self.broke.load(Relaxed) != 0 {
            self.broke.store(0, Relaxed);
        }
    }

    /// Forgets what came in a row.
    pub fn begin_rows(&self) {
        self.answered();
        set_if_other(&self.errs, 0);
        if self.foreign.load(Relaxed) != 0 {
            self.foreign.store(0, Relaxed);
        }
    }

    /// Attempts that have ended, and how many of them failed; both wrap.
    pub fn counts(&self) -> (u32, u32) {
        (self.attempts.load(Relaxed), self.failures.load(Relaxed))
    }

    /// How often it broke, and erred, in a row.
    pub fn rows(&self) -> (u32, u32) {
        (self.broke.load(Relaxed) as u32, self.errs.load(Relaxed))
    }

    /// The gRPC service that it does not know, and how often it said so in a row.
    pub fn foreign(&self) -> (Served, u32) {
        let row = self.foreign.load(Relaxed);
        (Served((row >> 32) as u32), row as u32)
    }

    /// Whether it is this gRPC service that it answered for, the last time that it answered for any.
    pub fn is_serving(&self, served: Served) -> bool {
        self.serves.load(Relaxed) == served.0
    }

    fn serves(&self, served: Served) {
        set_if_other(&self.serves, served.0);
    }
}

/// What all workers read is written only where it changes.
fn set_if_other(atomic: &AtomicU32, value: u32) {
    if atomic.load(Relaxed) != value {
        atomic.store(value, Relaxed);
    }
}

/// Replaces the value; what it was before.
fn update(atomic: &AtomicU64, next: impl Fn(u64) -> u64) -> u64 {
    let updated = atomic.fetch_update(Relaxed, Relaxed, |before| Some(next(before)));
    updated.unwrap_or_else(|before| before)
}

fn millis(now: Instant) -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    now.saturating_duration_since(*START).as_millis() as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROWS: Rows = Rows { broke: 3, errs: 3, foreign: 3 };

    fn orders() -> Served {
        Served::of_path("/shop.Orders/Get")
    }

    #[test]
    fn a_row_is_told_of_once_and_broken_by_an_answer() {
        let (history, now) = (History::default(), Instant::now());
        let note = |told| history.note(told, ROWS, || now);
        let (errs, works) = (Told::Errs(orders()), Told::Works(orders()));
        let told: Vec<_> = (0..5).map(|_| note(errs)).collect();
        assert_eq!(told, [None, None, Some(Row::Errs), None, None]);
        assert_eq!((note(works), note(errs), note(errs), note(works)), (None, None, None, None));
        assert_eq!((note(errs), note(errs), note(errs)), (None, None, Some(Row::Errs)));
        assert_eq!(history.counts(), (12, 10));
    }

    #[test]
    fn calls_that_end_with_their_connection_count_once_in_a_row() {
        let (history, start) = (History::default(), Instant::now());
        let at = |ms| history.note(Told::Broke, ROWS, || start + Duration::from_millis(ms));
        assert_eq!([0, 0, 1, 19].map(at), [None; 4]);
        assert_eq!([30, 31, 60, 61].map(at), [None, None, Some(Row::Broke), None]);
        history.answered();
        assert_eq!([100, 200].map(at), [None; 2], "an answer that has begun breaks the row");
        assert_eq!(at(300), Some(Row::Broke));
        assert_eq!(history.counts().1, 11, "each counts where shares are taken");
    }

    #[test]
    fn a_row_of_unknown_services_is_of_one_service() {
        let (history, now) = (History::default(), Instant::now());
        let foreign = |path| history.note(Told::Foreign(Served::of_path(path)), ROWS, || now);
        assert_eq!(foreign("/shop.Orders/Get"), None);
        assert_eq!(foreign("/shop.Orders/List"), None);
        assert_eq!(foreign("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), None);
        assert_eq!((foreign("/shop.Orders/Get"), foreign("/shop.Orders/Get")), (None, None));
        assert_eq!(foreign("/shop.Orders/Get"), Some(Row::Foreign));
        assert_eq!(history.foreign(), (orders(), 3));
        let again: Vec<_> = (4..=12).filter(|_| foreign("/shop.Orders/Get").is_some()).collect();
        assert_eq!(again, [6, 12]);
        assert!(!history.is_serving(orders()));
        history.note(Told::Works(orders()), ROWS, || now);
        assert!(history.is_serving(orders()));
        assert_eq!(history.foreign().1, 0);
    }

    #[test]
    fn a_caller_in_a_hurry_breaks_no_row_and_makes_none() {
        let (history, now) = (History::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(history.note(Told::Late, ROWS, || now), None);
        }
        assert_eq!((history.rows(), history.counts()), ((0, 0), (100, 100)));
    }
}
