//! The ways of a route, and which of them a call goes.

use std::sync::Arc;

use super::{Asked, key};
use crate::{
    config::{Action, HashOn, Policy, Route, Settings},
    model::{ServiceName, mix},
};

/// One way that the calls of a route go.
#[derive(Debug)]
pub struct Way {
    /// Where to.
    pub service: ServiceName,
    /// How calls are made on this way: the branch over the route, over the service.
    pub policy: Arc<Policy>,
    /// Share of the calls relative to the other ways.
    pub weight: u32,
}

/// All ways of a route, at least one. Choosing costs nothing where there is only one.
#[derive(Debug)]
pub(super) struct Split {
    ways: Vec<Way>,
    total: u64,
    on: Option<HashOn>,
}

impl Split {
    /// The ways of a route; none where it answers by itself.
    pub(super) fn new(route: &Route, settings: &Settings) -> Option<Self> {
        let policy = |service: &ServiceName| route.policy.over(settings.policy(service));
        let (ways, on) = match &route.action {
            Action::Respond(_) => return None,
            Action::Forward(service) => {
                let way = Way { service: service.clone(), policy: policy(service), weight: 1 };
                (vec![way], None)
            }
            Action::Split(split) => {
                let way = |branch: &crate::config::Branch| {
                    let service = branch.service.as_ref().or(split.service.as_ref())?;
                    let mut policy = policy(service);
                    if let Some(filter) = &branch.filter {
                        Arc::make_mut(&mut policy).filter = Arc::clone(filter);
                    }
                    Some(Way { service: service.clone(), policy, weight: branch.weight })
                };
                (split.branches.iter().filter_map(way).collect(), split.on.clone())
            }
        };
        let total = ways.iter().map(|way| u64::from(way.weight)).sum();
        (!ways.is_empty()).then_some(Self { ways, total, on })
    }

    /// All ways, in the order of the file.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// The way of one call: by what it is divided on, else by chance. A call that lies below the first
    /// weight goes the first way, and so on: whoever goes the first way stays there when its weight
    /// grows.
    pub(super) fn choose(&self, asked: &Asked<'_>) -> &Way {
        if self.ways.len() == 1 {
            return &self.ways[0];
        }
        let key = self.on.as_ref().and_then(|on| key(on, asked.shown()));
        // Mixed, so that it says nothing of where a balancer by the same key puts the call: otherwise a
        // way would have all of its calls on a few of its endpoints.
        let number = key.map_or_else(|| fastrand::u64(..), |key| mix(key, 1));
        // From 0 up to the total, evenly (Lemire, 2019).
        let mut point = ((u128::from(number) * u128::from(self.total)) >> 64) as u64;
        for way in &self.ways {
            if point < u64::from(way.weight) {
                return way;
            }
            point -= u64::from(way.weight);
        }
        // Only where all weights are 0, which is refused when it is read.
        &self.ways[0]
    }
}
