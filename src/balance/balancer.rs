//! The balancers: how one of those in play is picked.

use std::{sync::Arc, time::Duration};

use super::{
    Plan,
    by_key::ByKey,
    draw::Sequence,
    members::Members,
    p2c, peak_ewma,
    play::Play,
    tables::Shared,
    turns::Turns,
    wheel::{Excluded, Wheel},
};
use crate::{config::Balance, model::Tally};

/// A balancer with its state.
#[derive(Debug)]
pub(super) enum Balancer {
    WeightedRandom(Sequence),
    RoundRobin(Turns),
    P2c(Turns),
    /// With the time in which latencies are forgotten.
    PeakEwma(Duration),
    ByKey(ByKey),
}

impl Balancer {
    pub(super) fn new(
        plan: &Plan,
        members: &Members,
        play: &Play,
        wheel: &Wheel,
        shared: Shared<'_>,
    ) -> Self {
        match plan.balance {
            Balance::WeightedRandom => Self::WeightedRandom(Sequence::new()),
            Balance::RoundRobin => Self::RoundRobin(Turns::new(wheel)),
            Balance::P2c => Self::P2c(Turns::new(wheel)),
            Balance::PeakEwma => Self::PeakEwma(plan.decay),
            Balance::RingHash | Balance::Maglev => {
                Self::ByKey(ByKey::new(plan.balance, members, play, shared))
            }
        }
    }

    /// Takes new weights.
    pub(super) fn reweigh(&mut self, members: &Members, play: &Play, old: &Wheel, new: &Wheel) {
        match self {
            Self::WeightedRandom(_) | Self::PeakEwma(_) => {}
            Self::RoundRobin(turns) | Self::P2c(turns) => turns.reweigh(old, new),
            Self::ByKey(by_key) => by_key.reweigh(members, play, old, new),
        }
    }

    /// For the first attempt of a call.
    pub(super) fn first(
        &mut self,
        members: &Members,
        wheel: &Wheel,
        key: Option<u64>,
    ) -> Option<usize> {
        match self {
            Self::WeightedRandom(numbers) => wheel.draw(numbers.next(), &[]),
            Self::RoundRobin(turns) => turns.next(wheel),
            Self::P2c(turns) => p2c::next(members, wheel, turns),
            Self::PeakEwma(decay) => peak_ewma::pick(members, wheel, *decay, &[]),
            Self::ByKey(by_key) => by_key.first(members, wheel, key),
        }
    }

    /// For a further attempt, which is drawn among the others, and takes nobody's turn: were the
    /// turns of the endpoints that work used up by it, one that does not would be first for every
    /// call.
    pub(super) fn other(
        &self,
        members: &Members,
        wheel: &Wheel,
        key: Option<u64>,
        excluded: &Excluded,
    ) -> Option<usize> {
        match (self, key) {
            (Self::WeightedRandom(_) | Self::RoundRobin(_), _) => {
                wheel.draw(fastrand::u64(..), excluded)
            }
            (Self::P2c(_), _) | (Self::ByKey(_), None) => p2c::draw(members, wheel, excluded),
            (Self::PeakEwma(decay), _) => peak_ewma::pick(members, wheel, *decay, excluded),
            (Self::ByKey(by_key), Some(key)) => by_key.find(members, wheel, key, excluded),
        }
    }

    /// Where picks are counted together, if they are.
    pub(super) fn tally(&self) -> Option<Arc<Tally>> {
        match self {
            Self::ByKey(by_key) => Some(by_key.tally()),
            _ => None,
        }
    }
}
