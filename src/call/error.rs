//! Why a call, or one attempt of it, ended without an answer.

use std::time::Duration;

use super::{Call, bounded};
use crate::{
    metrics::AttemptOutcome,
    model::{Reason, Statuses},
    retry::Pushback,
};

/// Why the proxy ends a call by itself. The caller reads the message, programs the reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Stable code, sent as `pillion-error`.
    pub reason: Reason,
    /// What the caller is told in numbers; the reason's own, unless a route says another.
    pub statuses: Statuses,
    /// What was tried on what, and where to look; names the service.
    pub message: String,
    /// Whether and after which time to try again, where more is known of that than the reason tells.
    pub pushback: Option<Pushback>,
}

/// Most bytes of a message. Encoded it may be three times as long, and clients take 8 KiB of headers.
const MOST_SAID: usize = 2 << 10;

/// When a call that found no place comes again: long enough for some to have ended.
const LATER: Duration = Duration::from_millis(100);

impl CallError {
    /// An error with its message, which is cut where it is long: it goes into a header.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MOST_SAID {
            message = bounded(&message, MOST_SAID).into_owned();
        }
        Self { reason, statuses: reason.into(), message, pushback: None }
    }

    /// A limit was reached that lets calls through again after `wait`, or whenever another one ends.
    pub fn overloaded(message: impl Into<String>, wait: Option<Duration>) -> Self {
        // Were all told the same time, all would come at that time.
        let pushback = wait.unwrap_or(LATER).mul_f64(1.0 + fastrand::f64());
        Self { pushback: Some(Pushback::After(pushback)), ..Self::new(Reason::Overloaded, message) }
    }
}

/// Why one attempt ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct AttemptError {
    /// What the caller is told if this was the last attempt.
    pub error: CallError,
    /// How the attempt counts.
    pub outcome: AttemptOutcome,
    /// Whether the call may be tried again.
    pub progress: Progress,
}

/// How far an attempt got. The call comes back where all of it is still there: it can be tried again
/// then.
#[derive(Debug)]
pub enum Progress {
    /// Nothing was sent, or the endpoint said that it did not look at it: trying again cannot be wrong.
    Unprocessed(Box<Call>),
    /// The endpoint may have worked on it.
    MaybeProcessed(Option<Box<Call>>),
    /// The same, and the attempt was ended here: its answer had not begun within its limit.
    TimedOut(Option<Box<Call>>),
}
