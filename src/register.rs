//! Puts instances of services into registries, and keeps them there: a registration that never
//! silently vanishes.
//!
//! ```text
//! probes ──────┐
//! PUT, reload ─┼─ Wish ── Keeper ── Hand: what is held, and the next move ── Claim: two owners
//! drain ───────┘             │
//!                            └─ Store: a real etcd, or one of a test
//! ```
//!
//! [`Registrations`] is what the process holds: one task for each `[[register]]`, on the runtime that
//! it is started on. Each has a lease of its own, a key that is never put without that lease, and its
//! own connection. An error never ends a task: whatever is wrong is told in its [`Report`], and tried
//! again. Nobody's keys but its own are ever written or deleted.

mod claim;
mod hand;
mod keeper;
mod registration;
mod registrations;
mod report;
mod spec;
mod store;
mod wish;

pub use registrations::{Change, ChangeError, Changed, Registrations};
pub use report::{Loss, Report, State};

#[cfg(test)]
mod tests;
