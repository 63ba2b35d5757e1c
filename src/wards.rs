//! Which endpoints of the services in use are well: who is ejected for how calls ended, and who says
//! that it is not well when it is asked.
//!
//! Workers say what the end of an attempt tells of its endpoint, in counters of the endpoint
//! ([`crate::model::History`]); only a row of failures that is complete, and the end of a trial, are
//! told to the control thread at once, by [`Reports`]. There one `Ward` for each service
//! decides, alone and without a lock, and the endpoint is left out from the next pick on:
//!
//! A service's checks run beside that, while it is called (`checkups`).
//!
//! ```text
//!             a row of failures, a failure rate, another service answers
//!   well ──────────────────────────────────────────────────────────▶ ejected
//!    ▲                                                                  │ base × times
//!    │ one call that works                                              ▼
//!    └──────────────────────────────────────────────────────────── on trial ──▶ ejected, longer
//! ```

mod checkups;
mod evidence;
mod ward;
mod warden;

pub use warden::{Reports, Warden};
