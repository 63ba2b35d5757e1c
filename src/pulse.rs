//! Keeps a worker's timer awake while calls arrive.
//!
//! The runtime's timer wakes its own thread by a system call whenever a timer is set that ends
//! earlier than all others. On a quiet worker that is every limit of every call: each one a write, an
//! event and a read. With a tick always ahead, limits are set behind it and cost nothing but the entry.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{task::spawn_local, time::sleep};

/// Time between ticks. Limits of calls and connects are longer, as a rule; shorter ones only cost the
/// wake-up.
const TICK: Duration = Duration::from_millis(20);
/// Ticks without a call after which the pulse stops: a worker at rest does not wake.
const IDLE_TICKS: u32 = 5;

/// One for each worker.
#[derive(Debug, Default)]
pub struct Pulse {
    idle_ticks: Cell<u32>,
    running: Cell<bool>,
}

impl Pulse {
    /// Says that a call has arrived.
    pub fn beat(self: &Rc<Self>) {
        self.idle_ticks.set(0);
        if !self.running.replace(true) {
            spawn_local(run(Rc::clone(self)));
        }
    }
}

async fn run(pulse: Rc<Pulse>) {
    while pulse.idle_ticks.get() < IDLE_TICKS {
        pulse.idle_ticks.update(|ticks| ticks + 1);
        sleep(TICK).await;
    }
    pulse.running.set(false);
}
