//! Where endpoints come from: sources in, snapshots out.
//!
//! Sources run on the control thread and publish [`crate::model::Snapshot`]s; workers look services
//! up in the [`Directory`], and only a service never called before makes a call wait.

mod directory;

pub use directory::{Directory, ResolveError, SourceStatus};
