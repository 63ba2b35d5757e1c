//! A call on its way through the middlewares: what goes down, and what comes back up.
//!
//! The listener makes a [`Call`], each middleware passes it on, and a [`Reply`] or a [`CallError`]
//! comes back. [`CallMeta`] is shared by all of them; when the last one lets go of it, the call is
//! over, however it ended, and its [`Observer`] is told.

mod downstream;
mod error;
mod exchange;
mod foreign;
mod head;
mod ledger;
mod meta;
mod pump;
mod sound;
mod upload;
mod words;

pub use downstream::{Downstream, Turn, Turns};
pub use error::{AttemptError, CallError, Progress};
pub use exchange::{Broken, Exchange, Failed};
pub use foreign::is_foreign;
pub use head::Head;
pub use ledger::{Attempt, Ledger, Spent, millis};
pub use meta::{CallMeta, Decided, Kind, Observer, Outcome, Target};
pub use sound::Fields;
pub use upload::{Copied, Upload};
pub use words::bounded;

use std::{rc::Rc, time::Duration};

use http::response;

use crate::alarm::Alarm;

/// One call: its head, its body not yet read, and what is known about it.
#[derive(Debug)]
pub struct Call {
    /// Method, path, authority and headers, as they will be sent upstream.
    pub head: Head,
    /// The body, on its way in.
    pub upload: Upload,
    /// What is known about the call.
    pub meta: Rc<CallMeta>,
    /// What holds for its next attempt.
    pub terms: Terms,
}

/// What holds for one attempt of a call that may be tried again though an endpoint has worked on it.
/// By default nothing does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The head of the answer is held back, where the whole call has been sent, until the answer turns
    /// out to be more than a status.
    pub hold: bool,
    /// Longest time until the answer begins; none for no limit.
    pub limit: Option<Duration>,
    /// Attempts before this one that an endpoint may have worked on.
    pub previous: u32,
}

/// The beginning of an answer: its head is here, the rest is still being exchanged.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers, as they will be sent downstream.
    pub head: response::Parts,
    /// Body and trailers to come, and the rest of the upload.
    pub exchange: Box<Exchange>,
    /// When to give up, where the call has a deadline.
    pub deadline: Option<Alarm>,
}
