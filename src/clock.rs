//! The time, read once for each poll of a call.
//!
//! To read the clock takes some 25 ns, and a call with all policy at work asks for the time fifteen
//! times. While its task is polled nothing waits, so all that happens in one poll happens at one
//! time: that of the first who asks. The listener holds the time around each poll of a call; whoever
//! asks outside of that gets it as it is.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::Not) };
}

#[derive(Clone, Copy, Debug)]
enum Held {
    /// Nothing is held.
    Not,
    /// The time is to be held once somebody has asked for it.
    Unread,
    /// This is the time.
    At(Instant),
}

/// The time: within [`hold`] the same for all who ask.
pub fn now() -> Instant {
    HELD.with(|held| match held.get() {
        Held::At(now) => now,
        Held::Not => Instant::now(),
        Held::Unread => {
            let now = Instant::now();
            held.set(Held::At(now));
            now
        }
    })
}

/// Holds the time while `work` is done, which must not wait.
pub fn hold<T>(work: impl FnOnce() -> T) -> T {
    /// Lets the time go on also where the work panics.
    struct Release(Held);
    impl Drop for Release {
        fn drop(&mut self) {
            HELD.set(self.0);
        }
    }
    let _release = Release(HELD.replace(Held::Unread));
    work()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_only_while_it_is_held() {
        let start = now();
        advance(Duration::from_secs(1)).await;
        let passed = futures_util::FutureExt::now_or_never(async {
            hold(|| {
                let first = now();
                let _ = futures_util::FutureExt::now_or_never(advance(Duration::from_secs(1)));
                (first - start, now() - first)
            })
        });
        assert_eq!(passed, Some((Duration::from_secs(1), Duration::ZERO)));
        assert!(now() - start >= Duration::from_secs(1));
    }

    #[test]
    fn a_panic_lets_it_go_on() {
        let _ = std::panic::catch_unwind(|| hold(|| panic!("in a call")));
        assert!(matches!(HELD.get(), Held::Not));
    }
}
