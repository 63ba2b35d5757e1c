//! Copies the records of one layout into another, so that clients of one framework can call services
//! of another without a proxy beside them. `pillion registry copy` runs it.
//!
//! [`plan()`] decides for one service what is written, deleted and left out; it does no I/O.
//! [`Mirror`] keeps both sides in mind and asks for plans where something changed. [`once()`] and
//! [`follow()`] do what the plans say.
//!
//! What the mirror relies on: every copy that it keeps is under one lease, whose id says that it is
//! a mirror's ([`crate::registry::etcd::is_mirrored`]). So a copy is never copied again, whatever the
//! formats and however many mirrors run; no key is written over or deleted that is not under the
//! mirror's own lease; and when the mirror ends, all it made goes with the lease.

mod plan;
mod run;
mod state;

pub use plan::{Copy, LeftOut, Plan, Step, Why, plan};
pub use run::{Event, Job, Mode, Outcome, follow, once};
pub use state::{Mirror, Names};
