//! The pick: selectors in order, then the balancer.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{draw::Sequence, subset::Subset, turns::Turns};
use crate::{
    config::Balance,
    model::{Endpoint, Selectors, Snapshot},
};

/// What a service's calls with one selector choose from. Made for one snapshot, on one worker.
#[derive(Debug)]
pub struct Choice {
    rules: Vec<Rule>,
    known: usize,
}

/// One selector of the list, with the state of its balancer.
#[derive(Debug)]
struct Rule {
    subset: Subset,
    balancer: Balancer,
}

#[derive(Debug)]
enum Balancer {
    WeightedRandom(Sequence),
    RoundRobin(Turns),
    P2c(Turns),
}

/// Why no endpoint was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// The service has none.
    NoEndpoints,
    /// It has some, but the selector leaves none.
    NoMatch,
    /// The call has tried all that the selector leaves.
    AllTried,
    /// None of those that it has not tried can take a call now.
    Full,
}

impl Choice {
    /// Evaluates every rule once; picks only look at the result.
    pub fn new(snapshot: &Snapshot, selectors: &Selectors, balance: Balance) -> Self {
        let rule = |selector| {
            let subset = Subset::new(snapshot, selector);
            let balancer = match balance {
                Balance::WeightedRandom => Balancer::WeightedRandom(Sequence::new()),
                Balance::RoundRobin => Balancer::RoundRobin(Turns::new(&subset)),
                Balance::P2c => Balancer::P2c(Turns::new(&subset)),
            };
            Rule { subset, balancer }
        };
        let rules = selectors.rules().iter().map(rule);
        let rules = rules.filter(|rule| !rule.subset.members().is_empty()).collect();
        Self { rules, known: snapshot.endpoints.len() }
    }

    /// The endpoint for the next attempt of a call that has tried `tried`: from the first rule that
    /// has one left.
    ///
    /// # Errors
    /// [`PickError`] tells an unknown service from a selector that matches nothing and from a call
    /// that has tried everything.
    pub fn pick(&self, tried: &[Arc<Endpoint>]) -> Result<&Arc<Endpoint>, PickError> {
        self.rules.iter().find_map(|rule| rule.pick(tried)).ok_or(match self {
            Self { known: 0, .. } => PickError::NoEndpoints,
            Self { rules, .. } if rules.is_empty() => PickError::NoMatch,
            _ => PickError::AllTried,
        })
    }

    /// The same, among the endpoints for which `can` holds now: drawn, or, where draws keep meeting
    /// others, the first that there is.
    ///
    /// # Errors
    /// [`PickError::Full`] where it holds for none; otherwise as [`Self::pick`].
    pub fn pick_where(
        &self,
        tried: &[Arc<Endpoint>],
        can: impl Fn(&Endpoint) -> bool,
    ) -> Result<&Arc<Endpoint>, PickError> {
        /// Draws before all are looked at: nearly always enough while half of them can.
        const DRAWS: usize = 4;
        let mut passed_over: SmallVec<[_; 8]> = tried.iter().cloned().collect();
        let mut picked = self.pick(&passed_over)?;
        for _ in 0..DRAWS {
            if can(picked) {
                return Ok(picked);
            }
            passed_over.push(Arc::clone(picked));
            match self.pick(&passed_over) {
                Ok(other) => picked = other,
                Err(_) => return Err(PickError::Full),
            }
        }
        let is_new = |endpoint: &Endpoint| {
            !tried.iter().any(|tried| tried.record.address == endpoint.record.address)
        };
        let found = self.rules.iter().find_map(|rule| {
            let members = rule.subset.members();
            let (before, after) = members.split_at(fastrand::usize(..members.len()));
            after.iter().chain(before).find(|member| can(member) && is_new(member))
        });
        found.ok_or(PickError::Full)
    }

    /// The endpoints of the first rule that leaves any.
    pub fn candidates(&self) -> Option<&Subset> {
        self.rules.first().map(|rule| &rule.subset)
    }
}

impl Rule {
    fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        let at = match &self.balancer {
            _ if !tried.is_empty() => self.pick_other(tried)?,
            Balancer::WeightedRandom(numbers) => self.subset.draw(numbers.next(), &[])?,
            Balancer::RoundRobin(turns) => turns.next(&self.subset)?,
            Balancer::P2c(turns) => {
                turns.next_of_two(&self.subset, |second, first| self.is_freer(second, first))?
            }
        };
        Some(&self.subset.members()[at])
    }

    /// A further attempt is drawn among the others, and takes nobody's turn: were the turns of the
    /// endpoints that work used up by it, one that does not would be first for every call.
    ///
    /// It goes to an endpoint that is known to be registered, if there is one left: several suspects
    /// may have stopped at once.
    fn pick_other(&self, tried: &[Arc<Endpoint>]) -> Option<usize> {
        let excluded = self.subset.positions(tried);
        let mut excluded = self.subset.registered_only(&excluded).unwrap_or(excluded);
        let first = self.subset.draw(fastrand::u64(..), &excluded)?;
        if !matches!(self.balancer, Balancer::P2c(_)) {
            return Some(first);
        }
        let place = excluded.partition_point(|&at| at < first);
        excluded.insert(place, first);
        match self.subset.draw(fastrand::u64(..), &excluded) {
            Some(second) if self.is_freer(second, first) => Some(second),
            _ => Some(first),
        }
    }

    /// The power of two choices (Mitzenmacher, 2001), weighted: the second wins where, with this call
    /// added, it would hold no more calls for its weight than the first holds already. For equal
    /// weights: where it holds fewer.
    ///
    /// The two are not drawn at random but are the two whose turn it is by weight. Drawn at random,
    /// shares stray from the weights by up to 15 % when few calls are in flight, because whoever is
    /// passed over has lost that turn for good; so they stay within 3 %, and a slow endpoint is
    /// avoided as well.
    fn is_freer(&self, second: usize, first: usize) -> bool {
        let in_flight = |at: usize| u64::from(self.subset.members()[at].load.in_flight());
        (in_flight(second) + 1) * self.subset.weight(first)
            <= in_flight(first) * self.subset.weight(second)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use super::*;
    use crate::{balance::subset::tests::snapshot, model::InFlight};

    const ALL: [Balance; 3] = [Balance::WeightedRandom, Balance::RoundRobin, Balance::P2c];

    fn choice(weights: &[u32], selectors: &str, balance: Balance) -> Choice {
        Choice::new(&snapshot(weights), &selectors.parse().unwrap(), balance)
    }

    fn shares(choice: &Choice, calls: usize, concurrent: usize) -> Vec<f64> {
        fastrand::seed(7);
        let mut counts = HashMap::<String, usize>::new();
        let mut held = VecDeque::<InFlight>::new();
        for _ in 0..calls {
            if held.len() == concurrent {
                // Calls end in no particular order.
                let ended = fastrand::usize(..held.len());
                held.swap_remove_back(ended);
            }
            let endpoint = choice.pick(&[]).unwrap();
            held.push_back(endpoint.load.pick());
            *counts.entry(endpoint.record.address.to_string()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort();
        counts.into_iter().map(|(_, count)| count as f64 / calls as f64).collect()
    }

    #[test]
    fn every_balancer_gives_each_endpoint_its_weight_of_the_calls() {
        for balance in ALL {
            for concurrent in [1, 2, 4, 10, 50] {
                let shares = shares(&choice(&[1, 2, 3], "", balance), 6_000, concurrent);
                for (share, weight) in shares.iter().zip([1.0, 2.0, 3.0]) {
                    let wanted = weight / 6.0;
                    assert!(
                        (share / wanted - 1.0).abs() < 0.05,
                        "{balance:?}, {concurrent} at once: {shares:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn round_robin_spreads_turns_evenly() {
        let choice = choice(&[5, 1, 1], "", Balance::RoundRobin);
        let picks: Vec<_> = (0..700).map(|_| choice.pick(&[]).unwrap().record.weight).collect();
        let longest = picks.split(|weight| *weight != 5).map(<[_]>::len).max();
        assert!(longest <= Some(5), "runs of at most five: {longest:?}");
        assert!(
            picks.chunks(7).all(|turn| (4..=6).contains(&turn.iter().filter(|w| **w == 5).count()))
        );
    }

    #[test]
    fn p2c_turns_away_from_an_endpoint_that_holds_many_calls() {
        let choice = choice(&[1, 1, 1], "", Balance::P2c);
        let busy = Arc::clone(choice.pick(&[]).unwrap());
        let _held: Vec<_> = (0..100).map(|_| busy.load.pick()).collect();
        for _ in 0..1_000 {
            let picked = choice.pick(&[]).unwrap();
            assert_ne!(picked.record.address, busy.record.address);
        }
    }

    #[test]
    fn a_call_never_gets_an_endpoint_that_it_has_tried() {
        for balance in ALL {
            let choice = choice(&[1, 2, 3, 4], "", balance);
            for _ in 0..500 {
                let mut tried = Vec::new();
                while let Ok(endpoint) = choice.pick(&tried) {
                    assert!(!tried.iter().any(|t: &Arc<Endpoint>| Arc::ptr_eq(t, endpoint)));
                    tried.push(Arc::clone(endpoint));
                }
                assert_eq!(tried.len(), 4);
                assert_eq!(choice.pick(&tried).unwrap_err(), PickError::AllTried);
            }
        }
    }

    #[test]
    fn a_further_attempt_goes_to_a_registered_endpoint_before_any_suspect() {
        for balance in ALL {
            let snapshot = snapshot(&[1, 2, 3, 4, 5]);
            for suspect in &snapshot.endpoints[1..] {
                suspect.load.suspect();
                suspect.load.vouch();
            }
            let choice = Choice::new(&snapshot, &"".parse().unwrap(), balance);
            let registered = &snapshot.endpoints[0];
            let mut first_on_suspects = 0;
            for _ in 0..100 {
                let first = choice.pick(&[]).unwrap();
                if Arc::ptr_eq(first, registered) {
                    continue;
                }
                first_on_suspects += 1;
                let tried = [Arc::clone(first)];
                assert!(Arc::ptr_eq(choice.pick(&tried).unwrap(), registered));
                let tried = [Arc::clone(first), Arc::clone(registered)];
                assert!(choice.pick(&tried).is_ok(), "then another suspect");
            }
            assert!(first_on_suspects > 50, "{balance:?}: {first_on_suspects}");
        }
    }

    #[test]
    fn an_endpoint_that_never_connects_is_tried_first_by_its_share_of_the_calls_only() {
        for balance in ALL {
            let choice = choice(&[1, 2, 3], "", balance);
            let dead = |endpoint: &Arc<Endpoint>| endpoint.record.weight == 3;
            let mut first_on_dead = 0;
            for _ in 0..600 {
                let first = choice.pick(&[]).unwrap();
                if dead(first) {
                    first_on_dead += 1;
                    assert!(!dead(choice.pick(&[Arc::clone(first)]).unwrap()));
                }
            }
            assert!((290..=310).contains(&first_on_dead), "{balance:?}: {first_on_dead} of 600");
        }
    }

    #[test]
    fn endpoints_that_cannot_take_a_call_are_passed_over_until_none_can() {
        for balance in ALL {
            let choice = choice(&[1; 40], "version=v1;version=v0;", balance);
            let mut held = Vec::new();
            for _ in 0..40 {
                let picked = choice.pick_where(&[], |endpoint| endpoint.load.has_room(1)).unwrap();
                held.push(picked.load.try_pick(1).expect("it has room"));
            }
            let none = choice.pick_where(&[], |endpoint| endpoint.load.has_room(1));
            assert_eq!(none.unwrap_err(), PickError::Full);
            held.remove(17);
            let freed = choice.pick_where(&[], |endpoint| endpoint.load.has_room(1)).unwrap();
            assert_eq!(freed.load.in_flight(), 0);
            let tried = [Arc::clone(freed)];
            let none = choice.pick_where(&tried, |endpoint| endpoint.load.has_room(1));
            assert_eq!(none.unwrap_err(), PickError::Full);
        }
    }

    #[test]
    fn the_first_rule_with_an_untried_endpoint_decides() {
        let choice = choice(&[1, 1, 1, 1], "version=v9;version=v2;version=v1", Balance::P2c);
        let first = choice.pick(&[]).unwrap();
        let second = choice.pick(&[Arc::clone(first)]).unwrap();
        assert_eq!((&*first.record.version, &*second.record.version), ("v2", "v2"));
        let third = choice.pick(&[Arc::clone(first), Arc::clone(second)]).unwrap();
        assert_eq!(third.record.version, "v1");
    }

    #[test]
    fn nothing_known_and_nothing_matching_are_told_apart() {
        assert_eq!(choice(&[], "", Balance::P2c).pick(&[]).unwrap_err(), PickError::NoEndpoints);
        let unmatched = choice(&[1], "version=v9", Balance::P2c);
        assert_eq!(unmatched.pick(&[]).unwrap_err(), PickError::NoMatch);
    }
}
