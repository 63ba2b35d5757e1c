//! By which rules a choice is made.

use std::time::Duration;

use crate::{
    config::{Balance, Node, Percent, Policy, ZonePreference},
    model::stable_hash,
};

/// What a policy says of the choice of an endpoint, to a proxy in its place.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) balance: Balance,
    /// Zone whose endpoints go first.
    pub(super) zone: Option<Box<str>>,
    /// How long an endpoint is new.
    pub(super) slow_start: Duration,
    /// Most endpoints used; 0 for all.
    pub(super) subset: usize,
    /// Hash of this proxy's id.
    pub(super) node: u64,
    /// How fast latencies are forgotten.
    pub(super) decay: Duration,
    /// Part of the endpoints that must be well.
    pub(super) panic_threshold: Percent,
}

impl Plan {
    /// The plan of a service with this policy, on this node.
    pub fn new(policy: &Policy, node: &Node) -> Self {
        let prefers = policy.zone_preference == ZonePreference::Prefer && !node.zone.is_empty();
        Self {
            balance: policy.balance,
            zone: prefers.then(|| node.zone.as_str().into()),
            slow_start: policy.slow_start,
            subset: policy.subset as usize,
            node: stable_hash(node.id.as_bytes()),
            decay: policy.peak_ewma_decay,
            panic_threshold: policy.panic_threshold,
        }
    }
}
