//! Why a call, or one attempt of it, ended without an answer.

use super::Call;
use crate::{
    metrics::AttemptOutcome,
    model::{Reason, Statuses},
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
}

impl CallError {
    /// An error with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, statuses: reason.into(), message: message.into() }
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

/// How far an attempt got. The call comes back only where it is proven that no endpoint worked on it
/// and all of it is still there: trying again cannot be wrong then, and is not possible otherwise.
#[derive(Debug)]
pub enum Progress {
    /// Nothing was sent, or the endpoint said that it did not look at it.
    Unprocessed(Box<Call>),
    /// The endpoint may have worked on it.
    MaybeProcessed,
}
