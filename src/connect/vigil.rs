//! Watches over a connection that one call has for itself.
//!
//! A call without a deadline would wait for ever on a host that has vanished: nothing comes from it, not
//! even an end. The system watches if it is asked to, by four calls; most calls are over before it could
//! find anything, so it is only asked once one has taken long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::gather::Reins;
use crate::alarm::Alarm;

/// Asks the system to watch, once.
#[derive(Debug)]
pub(super) struct Vigil(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    begins: Alarm,
    silence: Duration,
    reins: Reins,
}

impl Vigil {
    /// For a call that begins now: a host that is silent for `silence` is to count as lost. The system, which
    /// goes by when the host was last heard, is asked half way.
    pub(super) fn new(silence: Duration, reins: Reins) -> Self {
        Self(Some(Waiting { begins: Alarm::after(silence / 2), silence, reins }))
    }

    /// Poll it before the connection, whenever that is polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(waiting) = &mut self.0
            && let Poll::Ready(()) = Pin::new(&mut waiting.begins).poll(cx)
        {
            waiting.reins.probe(waiting.silence);
            self.0 = None;
        }
    }
}
