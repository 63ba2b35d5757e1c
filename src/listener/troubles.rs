//! Connections that the system could not accept: counted, and told of now and then.

use std::{io, time::Duration};

use prometheus::IntCounter;
use tokio::time::Instant;

use super::Bound;
use crate::metrics::Metrics;

/// Between two lines in the log: it goes on for as long as there are no descriptors.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// What went wrong at one listening socket.
#[derive(Debug)]
pub struct Troubles {
    listener: String,
    counter: IntCounter,
    logged: Option<Instant>,
    /// Since the last line.
    untold: u32,
}

impl Troubles {
    /// None yet at this socket.
    pub fn new(metrics: &Metrics, listener: &Bound) -> Self {
        let listener = listener.address();
        let counter = metrics.accept_failures(&listener);
        Self { listener, counter, logged: None, untold: 0 }
    }

    /// Notes that a connection was not accepted.
    pub fn note(&mut self, error: &io::Error) {
        self.counter.inc();
        self.untold += 1;
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now >= logged + LOG_PAUSE) {
            let (listener, times) = (&*self.listener, std::mem::take(&mut self.untold));
            tracing::warn!(%error, listener, times, "cannot accept connections");
            self.logged = Some(now);
        }
    }
}
