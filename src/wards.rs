//! Which endpoints of the services in use are well: who is ejected for how calls ended.
//!
//! Workers say what the end of an attempt tells of its endpoint, in counters of the endpoint
//! ([`crate::model::History`]); only a row of failures that is complete, and the end of a trial, are
//! told to the control thread at once, by [`Reports`]. There one [`Ward`](ward::Ward) for each service
//! decides, alone and without a lock, and the endpoint is left out from the next pick on:
//!
//! ```text
//!             a row of failures, a failure rate, another service answers
//!   well ──────────────────────────────────────────────────────────▶ ejected
//!    ▲                                                                  │ base × times
//!    │ one call that works                                              ▼
//!    └──────────────────────────────────────────────────────────── on trial ──▶ ejected, longer
//! ```

mod evidence;
mod ward;
mod warden;

pub use warden::{Reports, Warden};
