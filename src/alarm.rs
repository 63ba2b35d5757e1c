//! Time limits of calls, cheap to set and to take back.
//!
//! Nearly every limit of a call is taken back before it passes, so that is what must cost little. A
//! timer of the runtime takes a lock and changes a heap of levels both times; an alarm is linked into
//! a list of its worker and unlinked again (`wheel`). One task of the worker sleeps until the
//! earliest one. Alarms ring at the millisecond after their time, never before it.
//!
//! An alarm belongs to the thread that polls it first, which must run local tasks: the worker.

mod bell;
mod wheel;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::{
    task::spawn_local,
    time::{Instant, Sleep, sleep_until},
};

pub use bell::Bell;
use wheel::{Key, Wheel};

use crate::{
    clock,
    panics::{Task, again},
};

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::default();
}

/// The alarms of one worker.
#[derive(Debug, Default)]
struct Clock {
    /// Tick 0, once there was an alarm.
    start: Option<Instant>,
    wheel: Wheel,
    /// Tick that the task sleeps until; none where there is no task.
    armed: Option<u64>,
    /// The task.
    ticker: Option<Waker>,
}

/// Ready once its time has come. Dropping it takes it back. Within [`Bell::poll`] it has no place of its
/// own in the wheel.
#[derive(Debug)]
pub struct Alarm {
    at: Instant,
    key: Option<Key>,
    /// Stays on its thread.
    _local: PhantomData<Rc<()>>,
}

impl Alarm {
    /// Rings at `at`, or at once if that has passed when it is first polled.
    pub const fn at(at: Instant) -> Self {
        Self { at, key: None, _local: PhantomData }
    }

    /// Rings after `delay` from now.
    pub fn after(delay: Duration) -> Self {
        let now = clock::now();
        // A time that cannot be said never comes.
        Self::at(now.checked_add(delay).unwrap_or_else(|| now + Duration::from_secs(1 << 30)))
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let has_rung = match self.key {
            Some(key) => look(key, cx.waker()),
            None => clock::now() >= self.at,
        };
        if has_rung {
            return Poll::Ready(());
        }
        if self.key.is_none() && !bell::tell(self.at) {
            self.key = Some(insert(self.at, cx.waker()));
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            remove(key);
        }
    }
}

/// Has `waker` woken at the millisecond after `at`.
fn insert(at: Instant, waker: &Waker) -> Key {
    CLOCK.with_borrow_mut(|clock| {
        let start = *clock.start.get_or_insert_with(clock::now);
        let tick = ticks(at.saturating_duration_since(start)) + 1;
        let key = clock.wheel.insert(tick, waker.clone());
        match clock.armed {
            Some(armed) if armed <= tick => {}
            Some(_) => clock.ticker.iter().for_each(Waker::wake_by_ref),
            None => drop(spawn_local(again(Task::Worker, tick_on))),
        }
        clock.armed = Some(clock.armed.map_or(tick, |armed| armed.min(tick)));
        key
    })
}

/// Whether the time has come; if not, `waker` is woken when it does.
fn look(key: Key, waker: &Waker) -> bool {
    // A waker may hold the last piece of a task, whose end may drop alarms: not in here.
    let (has_rung, _old) = CLOCK.with_borrow_mut(|clock| clock.wheel.look(key, waker));
    has_rung
}

fn remove(key: Key) {
    // At the end of the thread there may be no clock left.
    let _waker = CLOCK.try_with(|clock| clock.borrow_mut().wheel.remove(key));
}

/// Whole milliseconds.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

/// Rings what is due, until there is no alarm left.
async fn tick_on() {
    let mut sleep: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        loop {
            let mut due = SmallVec::<[Waker; 16]>::new();
            let next = CLOCK.with_borrow_mut(|clock| {
                let start = clock.start?;
                let now = ticks(clock::now().saturating_duration_since(start));
                clock.wheel.advance(now, &mut due);
                clock.armed = clock.wheel.next();
                clock.ticker = clock.armed.map(|_| cx.waker().clone());
                clock.armed.map(|tick| (tick, start))
            });
            due.into_iter().for_each(Waker::wake);
            let Some((tick, start)) = next else { return Poll::Ready(()) };
            let timer = match &mut sleep {
                Some((until, timer)) => {
                    if *until != tick {
                        *until = tick;
                        timer.as_mut().reset(start + Duration::from_millis(tick));
                    }
                    timer
                }
                none => {
                    let timer = Box::pin(sleep_until(start + Duration::from_millis(tick)));
                    &mut none.insert((tick, timer)).1
                }
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
