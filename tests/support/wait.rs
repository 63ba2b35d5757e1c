//! Waiting for what must happen, however busy the machine is.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

/// Long enough for a busy machine; nothing waits for it unless it fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Between two looks at something that does not tell of itself.
const LOOK: Duration = Duration::from_millis(10);
/// What has not moved for so long stands still.
const STILL: Duration = Duration::from_millis(500);

/// Waits until `so`, asked again and again.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < SOON, "waited for {SOON:?} until {what}");
        sleep(LOOK).await;
    }
}

/// How long it takes from the end of `change` until `acts`, asked again and again, less what the machine takes for
/// anything just now: for the change itself, and for each question.
#[allow(dead_code, reason = "tests/behaviour uses it")]
pub(crate) async fn delay(
    change: impl Future<Output = ()>,
    mut acts: impl AsyncFnMut() -> bool,
) -> Duration {
    let asked = Instant::now();
    change.await;
    let changed = Instant::now();
    let mut slowest = changed - asked;
    loop {
        let asked = Instant::now();
        let so = acts().await;
        slowest = slowest.max(asked.elapsed());
        if so {
            return changed.elapsed().saturating_sub(slowest);
        }
    }
}

/// Waits until a counter that has begun to move stands still, and returns it.
#[allow(dead_code, reason = "tests/behaviour and tests/chaos use it")]
pub(crate) async fn stall(counter: &AtomicUsize) -> usize {
    loop {
        let before = counter.load(Relaxed);
        sleep(STILL).await;
        if before > 0 && counter.load(Relaxed) == before {
            return before;
        }
    }
}

/// Waits for an event that must come.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(SOON, event).await {
        Ok(happened) => happened,
        Err(_) => panic!("waited for {SOON:?} for {what}"),
    }
}
