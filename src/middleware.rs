//! The stages of a call, one file each, in the order of the path.
//!
//! Each is a [`tower::Service`] of a [`Call`](crate::call::Call) that wraps the next; [`crate::proxy`]
//! lines them up. Every stage is always ready: none queues, so `poll_ready` has nothing to wait for.

mod observe;

mod admit;
mod balance;
mod connect;
mod deadline;
mod fault;
mod forward;
mod headers;
mod judge;
mod limit;
mod resolve;

pub use admit::{Admit, AdmitLayer};
pub use balance::{Balance, BalanceLayer};
pub use connect::{Connect, ConnectLayer};
pub(crate) use deadline::exceeded;
pub use deadline::{Deadline, DeadlineLayer};
pub use fault::{Fault, FaultLayer};
pub use forward::{Connected, Forward};
pub use headers::{Headers, HeadersLayer};
pub use limit::{Limit, LimitLayer};
pub use observe::{Observe, ObserveLayer};
pub use resolve::{Resolve, ResolveLayer};
