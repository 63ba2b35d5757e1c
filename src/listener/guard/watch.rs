//! Looks at a connection from time to time: whether something is held up, or it is idle, or old.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{Breach, Guard};

/// Looks in a limit of time, so that none is exceeded by more than a quarter.
const LOOKS: u32 = 4;
/// Where nothing is limited.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum Look {
    /// The application holds something up.
    Breach(Breach),
    /// The connection has had no calls for long.
    Idle,
    /// It is old.
    Old,
}

/// When to look next. The timer is only set anew where something has begun that is limited.
#[derive(Debug)]
pub(in crate::listener) struct Watch {
    timer: Pin<Box<Sleep>>,
    /// Whether the timer is set for something that has begun.
    closely: bool,
    ends: Option<Instant>,
    /// Looks at which there was no call, and calls that had come at the last one.
    idle: u32,
    calls: u32,
    /// Looks at which answers were on their way and none went on, and writes at the last one.
    stuck: u32,
    writes: u32,
}

impl Watch {
    pub(in crate::listener) fn new(guard: &Guard) -> Self {
        let age = guard.limits.max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let ends = (!age.is_zero()).then(|| guard.accepted + age);
        let mut watch = Self {
            timer: Box::pin(sleep(NEVER)),
            closely: false,
            ends,
            idle: 0,
            calls: 0,
            stuck: 0,
            writes: 0,
        };
        watch.set(guard, false);
        watch
    }

    /// Looks when it is time to. `calls` counts those that have come; `has_calls` tells whether there
    /// are some now.
    pub(in crate::listener) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        guard: &Guard,
        calls: u32,
        has_calls: impl Fn() -> bool,
    ) -> Poll<Look> {
        // One that was idle has to be looked at more often from its first call on.
        if !self.closely && (guard.is_held_up() || (self.idle > 0 && calls != self.calls)) {
            self.idle = 0;
            self.set(guard, true);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let has_calls = has_calls();
            let idle = !self.closely && calls == self.calls && !has_calls;
            self.idle = if idle { self.idle + 1 } else { 0 };
            self.calls = calls;
            // What is left of calls that have ended is answers that the application has no window for.
            let stuck =
                has_calls && guard.downstream.calls() == 0 && guard.writes.get() == self.writes;
            self.stuck = if stuck { self.stuck + 1 } else { 0 };
            self.writes = guard.writes.get();
            let found = self.look(guard);
            self.set(guard, has_calls);
            if let Some(found) = found {
                return Poll::Ready(found);
            }
        }
    }

    fn look(&mut self, guard: &Guard) -> Option<Look> {
        let now = Instant::now();
        if let Some(breach) = guard.look(now) {
            return Some(Look::Breach(breach));
        }
        if self.stuck > LOOKS && !guard.limits.stall_timeout.is_zero() {
            return Some(Look::Breach(Breach::Stalled));
        }
        if self.ends.is_some_and(|ends| ends <= now) {
            self.ends = None;
            return Some(Look::Old);
        }
        (self.idle >= LOOKS && !guard.limits.idle_timeout.is_zero()).then_some(Look::Idle)
    }

    fn set(&mut self, guard: &Guard, has_calls: bool) {
        self.closely = guard.is_held_up();
        let limits = &guard.limits;
        let or_never = |limit: Duration| if limit.is_zero() { NEVER } else { limit };
        let (stall, idle) = (or_never(limits.stall_timeout), or_never(limits.idle_timeout));
        let next = match (self.closely, has_calls) {
            (true, _) => limits.header_timeout.min(stall),
            (false, true) => stall.min(idle),
            (false, false) => idle,
        } / LOOKS;
        let now = Instant::now();
        let next = now + next.max(Duration::from_millis(1));
        self.timer.as_mut().reset(self.ends.map_or(next, |ends| ends.min(next)));
    }
}

impl Guard {
    /// Whether something has begun that has to end in time.
    fn is_held_up(&self) -> bool {
        !self.heard.get() || self.within_head.get().is_some() || self.blocked.get().is_some()
    }

    /// What has taken too long at `now`.
    fn look(&self, now: Instant) -> Option<Breach> {
        let has_passed = |since: Option<Instant>, limit: Duration| {
            !limit.is_zero() && since.is_some_and(|since| now >= since + limit)
        };
        let silent = Some(self.accepted).filter(|_| !self.heard.get());
        if has_passed(silent.or_else(|| self.within_head.get()), self.limits.header_timeout) {
            return Some(Breach::HeaderTimeout);
        }
        has_passed(self.blocked.get(), self.limits.stall_timeout).then_some(Breach::Stalled)
    }
}
