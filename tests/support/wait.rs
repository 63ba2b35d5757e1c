//! Waiting for what must happen, however busy the machine is.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Long enough for a busy machine; nothing waits for it unless it fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Between two looks at something that does not tell of itself.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `so`, asked again and again.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < SOON, "waited for {SOON:?} until {what}");
        sleep(LOOK).await;
    }
}

/// Waits for an event that must come.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(SOON, event).await {
        Ok(happened) => happened,
        Err(_) => panic!("waited for {SOON:?} for {what}"),
    }
}
