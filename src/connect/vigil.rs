//! Watches over a connection that one call has for itself.
//!
//! A call without a deadline would wait for ever on a host that has vanished: nothing comes from it, not
//! even an end. The system watches if it is asked to, by four calls; most calls are over before it could
//! find anything, so it is only asked once one has taken long.

use std::{future::Future, pin::Pin, task::Context, time::Duration};

use crate::alarm::Alarm;

/// Tells when the system is to be asked to watch, once.
#[derive(Debug)]
pub(super) struct Vigil(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    begins: Alarm,
    silence: Duration,
}

impl Vigil {
    /// For a call that begins now: a host that is silent for `silence` is to count as lost. The system, which
    /// goes by when the host was last heard, is asked half way.
    pub(super) fn new(silence: Duration) -> Self {
        Self(Some(Waiting { begins: Alarm::after(silence / 2), silence }))
    }

    /// Poll it whenever the connection is: the silence to ask for, when the time has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        let Waiting { begins, silence } = self.0.as_mut()?;
        let silence = Pin::new(begins).poll(cx).is_ready().then_some(*silence)?;
        self.0 = None;
        Some(silence)
    }
}
