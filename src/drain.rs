//! Stopping without losing a call.
//!
//! The control thread says once that the process stops; each worker keeps a [`Drain`] for its
//! connections and calls, because those must not cross threads.

use std::{cell::Cell, time::Duration};

use tokio::{sync::Notify, time::Instant};

/// How long calls that are still on their way to us are taken after connections were told to go
/// away. A caller that goes on opening streams for longer does not heed GOAWAY.
const GRACE: Duration = Duration::from_secs(2);

/// Whether a worker is stopping.
#[derive(Debug, Default)]
pub struct Drain {
    began: Cell<Option<Instant>>,
    begins: Notify,
}

impl Drain {
    /// Begins: connections are told to go away.
    pub fn begin(&self) {
        if self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
            self.begins.notify_waiters();
        }
    }

    /// Waits until stopping begins; at once if it has.
    pub async fn begun(&self) {
        let begins = self.begins.notified();
        if self.began.get().is_none() {
            begins.await;
        }
    }

    /// Whether calls that arrive now are refused.
    pub fn refuses_calls(&self) -> bool {
        self.began.get().is_some_and(|began| began.elapsed() > GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_to_a_stopping_proxy_are_taken_and_late_ones_are_refused() {
        let drain = Drain::default();
        assert!(!drain.refuses_calls());
        tokio::join!(drain.begun(), async { drain.begin() });
        drain.begun().await;
        assert!(!drain.refuses_calls());
        tokio::time::advance(GRACE + Duration::from_millis(1)).await;
        assert!(drain.refuses_calls());
    }
}
