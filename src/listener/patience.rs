//! How long an answer may wait for an application that does not take it, and how much of it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{guard::Burden, limits::Breach};
use crate::{alarm::Alarm, call::Exchange, clock};

/// Between two looks at an answer that waits.
const LOOK: Duration = Duration::from_millis(250);

/// The patience with one call. Nothing is set up before its answer has to wait.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    look: Alarm,
    /// When the application last took something, and how much it had taken by then.
    since: Instant,
    taken: u64,
}

impl Patience {
    /// Ready once it is over, with the limit that was exceeded. Poll it when nothing more can be handed
    /// over for now.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        burden: &mut Burden,
    ) -> Poll<Breach> {
        let held = exchange.waits_for_room(cx);
        if held == 0 && self.0.is_none() {
            return Poll::Pending;
        }
        if burden.exceeds_with(held, exchange.is_shared()) {
            return Poll::Ready(Breach::Buffered);
        }
        let taken = exchange.handed_over();
        let waiting = self.0.get_or_insert_with(|| {
            Box::new(Waiting { look: Alarm::after(LOOK), since: clock::now(), taken })
        });
        while Pin::new(&mut waiting.look).poll(cx).is_ready() {
            if held == 0 {
                self.0 = None;
                return Poll::Pending;
            }
            let limit = burden.limits().stall_timeout;
            let now = clock::now();
            if taken != waiting.taken {
                (waiting.since, waiting.taken) = (now, taken);
            } else if !limit.is_zero() && now >= waiting.since + limit {
                return Poll::Ready(Breach::Stalled);
            }
            waiting.look = Alarm::at(now + LOOK);
        }
        Poll::Pending
    }
}
