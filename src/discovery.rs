//! Where endpoints come from: sources in, snapshots out.
//!
//! ```text
//! file ─┐                      ┌─ Directory ── workers: one lookup a service, then Arc<Service>
//! etcd ─┼─ lists and changes ─ Board
//! etcd ─┘                      └─ Snapshot by snapshot
//!   └──── reports ──── Desk ──── questions of Directory::resolve
//! ```
//!
//! [`start`] runs everything as tasks of the runtime it is called on, which is the control thread's;
//! workers on other threads use the [`Directory`], and only a service never called before makes a call
//! wait. Sources never fail for good: an error is told in [`SourceStatus`], changes no set, and is
//! tried again.

mod board;
mod brake;
mod desk;
mod directory;
mod doubts;
mod etcd;
mod file;
mod run;
mod shared;
mod state;
mod status;
mod table;
mod task;
mod timing;
mod trouble;

pub use directory::{Directory, ResolveError, SourceStatus};
pub use run::{Discovery, Options, start, start_with};
pub use shared::Suspect;
pub use timing::Timing;
pub use trouble::Trouble;
