//! One place in the wheel for all alarms of a call.
//!
//! A call may have a deadline, a limit for its attempt and a time after which it is hedged, and takes
//! all of them back within milliseconds. While it is polled its alarms only say when they would ring,
//! and the bell is set for the earliest. That asks for one thing: each poll of the call polls every
//! alarm that it waits for. An alarm that has been dropped in between costs at most one poll in vain.

use std::{
    cell::Cell,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{Key, insert, look, remove};

thread_local! {
    static SOUGHT: Cell<Sought> = const { Cell::new(Sought::Nowhere) };
}

/// What alarms that are polled now have said.
#[derive(Clone, Copy, Debug)]
enum Sought {
    /// No bell listens: each alarm takes a place of its own.
    Nowhere,
    /// The earliest that one of them is to ring.
    Earliest(Option<Instant>),
}

/// Rings for the alarms of one task.
#[derive(Debug, Default)]
pub struct Bell(Option<(Instant, Key)>);

impl Bell {
    /// Polls `task`, and sets the bell for the earliest of the alarms that it then waits for.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        task: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        /// What was before is again, also where the task panics.
        struct Before(Sought);
        impl Drop for Before {
            fn drop(&mut self) {
                SOUGHT.set(self.0);
            }
        }
        let before = Before(SOUGHT.replace(Sought::Earliest(None)));
        let polled = task(cx);
        if polled.is_pending()
            && let Sought::Earliest(Some(at)) = SOUGHT.get()
        {
            self.set(at, cx);
        }
        drop(before);
        polled
    }

    fn set(&mut self, at: Instant, cx: &Context<'_>) {
        if let Some((set, key)) = self.0 {
            let has_rung = look(key, cx.waker());
            if !has_rung && set <= at {
                return;
            }
            remove(key);
        }
        self.0 = Some((at, insert(at, cx.waker())));
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some((_, key)) = self.0 {
            remove(key);
        }
    }
}

/// Tells the bell of the task that is polled that it must not ring later than `at`. False where there
/// is none.
pub(super) fn tell(at: Instant) -> bool {
    let Sought::Earliest(earliest) = SOUGHT.get() else { return false };
    if earliest.is_none_or(|earliest| at < earliest) {
        SOUGHT.set(Sought::Earliest(Some(at)));
    }
    true
}
