//! The pick: selectors in order, then who is in play, then the balancer.

use std::{
    borrow::Borrow,
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use smallvec::SmallVec;

use super::{
    Plan, Stages, Tables,
    balancer::Balancer,
    members::Members,
    play::{Play, play},
    standard::{Standard, standards},
    wheel::{Excluded, Wheel},
};
use crate::model::{Endpoint, InFlight, Selectors, Snapshot, Tally, Trial};

/// What a service's calls with one selector choose from. Made for one snapshot, on one worker.
///
/// Endpoints become unusable and usable again more often than snapshots change, and new ones grow
/// into their weight: [`Self::keep_up`] takes that in, once for all picks until the next change.
#[derive(Debug)]
pub struct Choice {
    plan: Plan,
    /// Those that match an endpoint.
    rules: Vec<Rule>,
    /// All that were asked for.
    selectors: Selectors,
    /// How many endpoints each stage keeps as they are now.
    stages: RefCell<Rc<Stages>>,
    known: usize,
    /// Changes of the service that have been taken in.
    seen: Cell<u64>,
    /// When new endpoints are to be looked at again.
    due: Cell<Option<Instant>>,
    /// Whether a call may try an endpoint that was ejected.
    has_trials: Cell<bool>,
}

/// One selector of the list, with the state of its balancer.
#[derive(Debug)]
struct Rule {
    /// Its place among the selectors.
    number: usize,
    members: Members,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// Weights as they are now; 0 for who is not in play.
    wheel: Wheel,
    balancer: Balancer,
    /// Whether there may be members that could take a call but are not in play.
    has_reserve: bool,
    /// What members must be to be used.
    standard: Standard,
    /// Positions of those that a call may try.
    trials: Vec<usize>,
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

/// An endpoint for one attempt.
#[derive(Debug)]
pub struct Picked<'a> {
    /// Which.
    pub endpoint: &'a Arc<Endpoint>,
    /// By which of the selectors, counted from 0.
    pub rule: usize,
    tally: Option<Arc<Tally>>,
    trial: Option<Trial>,
}

impl Choice {
    /// Evaluates every rule once; picks only look at the result.
    pub fn new(
        snapshot: &Snapshot,
        selectors: &Selectors,
        plan: &Plan,
        tables: &Tables,
        now: Instant,
    ) -> Self {
        let members = selectors.rules().iter().map(|selector| Members::new(snapshot, selector));
        let members = members.enumerate().filter(|(_, members)| members.len() > 0);
        let members: Vec<_> = members.collect();
        let known = snapshot.endpoints.len();
        let Plays { plays, stages, due } = Plays::new(selectors, known, &members, plan, now);
        let rule = |((number, members), (standard, play)): ((usize, Members), (Standard, Play))| {
            let wheel = play.wheel(&members);
            let shared = tables.of(&snapshot.service, selectors.text());
            let balancer = Balancer::new(plan, &members, &play, &wheel, shared);
            let (has_reserve, trials) = (play.parts.is_some(), members.trials());
            let state = State { wheel, balancer, has_reserve, standard, trials };
            Rule { number, members, state: state.into() }
        };
        let rules: Vec<_> = members.into_iter().zip(plays).map(rule).collect();
        let has_trials = rules.iter().any(|rule| !rule.state.borrow().trials.is_empty());
        Self {
            plan: plan.clone(),
            rules,
            selectors: selectors.clone(),
            stages: RefCell::new(Rc::new(stages)),
            known,
            seen: Cell::new(0),
            due: due.into(),
            has_trials: has_trials.into(),
        }
    }

    /// Takes in what has changed since the last call: which endpoints are usable, counted by
    /// `changes` of the service, and how far new ones have come. Costs a comparison where nothing has.
    pub fn keep_up(&self, changes: u64, now: impl Fn() -> Instant) {
        let is_due = || self.due.get().is_some_and(|due| now() >= due);
        if self.seen.replace(changes) != changes || is_due() {
            self.refresh(now());
        }
    }

    fn refresh(&self, now: Instant) {
        let members = self.rules.iter().map(|rule| (rule.number, &rule.members));
        let members: Vec<_> = members.collect();
        let Plays { plays, stages, due } =
            Plays::new(&self.selectors, self.known, &members, &self.plan, now);
        let mut has_trials = false;
        for (Rule { members, state, .. }, (standard, play)) in self.rules.iter().zip(plays) {
            let state = &mut *state.borrow_mut();
            let wheel = play.wheel(members);
            state.balancer.reweigh(members, &play, &state.wheel, &wheel);
            state.wheel = wheel;
            state.has_reserve = play.parts.is_some();
            state.standard = standard;
            state.trials = members.trials();
            has_trials |= !state.trials.is_empty();
        }
        self.stages.replace(Rc::new(stages));
        self.due.set(due);
        self.has_trials.set(has_trials);
    }

    /// How many endpoints each stage keeps for the picks that are made now.
    pub fn stages(&self) -> Rc<Stages> {
        Rc::clone(&self.stages.borrow())
    }

    /// The endpoint for the next attempt of a call with this key, if it has one, that has tried
    /// `tried`: from the first rule that has one left. A first attempt may be the one that tries an
    /// endpoint which was ejected.
    ///
    /// # Errors
    /// [`PickError`] tells an unknown service from a selector that matches nothing and from a call
    /// that has tried everything.
    pub fn pick(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Result<Picked<'_>, PickError> {
        let trial = || self.rules.iter().find_map(Rule::trial);
        let is_first = tried.is_empty() && self.has_trials.get();
        let trial = is_first.then(trial).flatten();
        let pick = || self.rules.iter().find_map(|rule| rule.pick(key, tried));
        trial.or_else(pick).ok_or(match self {
            Self { known: 0, .. } => PickError::NoEndpoints,
            Self { rules, .. } if rules.is_empty() => PickError::NoMatch,
            _ => PickError::AllTried,
        })
    }

    /// The same, among the endpoints for which `can` holds now: picked, or, where picks keep meeting
    /// others, the first that there is.
    ///
    /// # Errors
    /// [`PickError::Full`] where it holds for none; otherwise as [`Self::pick`].
    pub fn pick_where(
        &self,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
        can: impl Fn(&Endpoint) -> bool,
    ) -> Result<Picked<'_>, PickError> {
        /// Picks before all are looked at: nearly always enough while half of them can.
        const PICKS: usize = 4;
        let mut passed_over: SmallVec<[_; 8]> = tried.iter().cloned().collect();
        let mut picked = self.pick(key, &passed_over)?;
        for _ in 0..PICKS {
            if can(picked.endpoint) {
                return Ok(picked);
            }
            passed_over.push(Arc::clone(picked.endpoint));
            match self.pick(key, &passed_over) {
                Ok(other) => picked = other,
                Err(_) => return Err(PickError::Full),
            }
        }
        self.rules.iter().find_map(|rule| rule.find(tried, &can)).ok_or(PickError::Full)
    }

    /// Any endpoint that the selectors leave and the call has not tried, whatever is held against it: for a
    /// call that could connect none of the others. Looks at every member, which is rare.
    pub fn pick_any(&self, tried: &[Arc<Endpoint>]) -> Option<Picked<'_>> {
        self.rules.iter().find_map(|rule| rule.any(tried))
    }
}

/// The stages that each rule has gone through.
struct Plays {
    /// One a rule, and whom it admits.
    plays: Vec<(Standard, Play)>,
    stages: Stages,
    /// When they are to be taken again.
    due: Option<Instant>,
}

impl Plays {
    /// `rules` are those of `selectors` that match any of the `known` endpoints, by number.
    fn new<M: Borrow<Members>>(
        selectors: &Selectors,
        known: usize,
        rules: &[(usize, M)],
        plan: &Plan,
        now: Instant,
    ) -> Self {
        let members = rules.iter().map(|(_, members)| members.borrow());
        let standards = standards(members, plan.panic_threshold);
        let (mut plays, mut stages, mut due) = (Vec::new(), Stages::new(known), None);
        let mut rules = rules.iter().zip(standards).peekable();
        for (number, selector) in selectors.rules().iter().enumerate() {
            let rule = rules.next_if(|((of, _), _)| *of == number);
            let rule = rule.map(|((_, members), standard)| (members.borrow(), standard));
            let (size, standard) = rule.map_or((0, Standard::Well), |(m, of)| (m.len(), of));
            stages.rule(selector, size, standard);
            let Some((members, _)) = rule else { continue };
            let play = play(members, plan, standard, now, &mut stages.watch(plan));
            due = earlier(due, play.due);
            plays.push((standard, play));
        }
        Self { plays, stages, due }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

impl Rule {
    /// A member that was ejected and has waited its time, for the one call that tries it.
    fn trial(&self) -> Option<Picked<'_>> {
        let State { balancer, trials, .. } = &*self.state.borrow();
        trials.iter().find_map(|&at| {
            let trial = Trial::take(&self.members.endpoints()[at].load)?;
            Some(self.picked(at, balancer, Some(trial)))
        })
    }

    fn pick(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Option<Picked<'_>> {
        let State { wheel, balancer, has_reserve, standard, .. } = &mut *self.state.borrow_mut();
        let at = if tried.is_empty() {
            balancer.first(&self.members, wheel, key)?
        } else {
            let other = |excluded: &Excluded| balancer.other(&self.members, wheel, key, excluded);
            let excluded = self.members.positions(tried);
            // One that is still registered, if there is one left: several suspects may have stopped at
            // once.
            let registered = self.members.registered_only(&excluded);
            let found =
                registered.and_then(|excluded| other(&excluded)).or_else(|| other(&excluded));
            match found {
                None if *has_reserve => self.reserve(*standard, &excluded)?,
                found => found?,
            }
        };
        Some(self.picked(at, balancer, None))
    }

    fn picked(&self, at: usize, balancer: &Balancer, trial: Option<Trial>) -> Picked<'_> {
        let endpoint = &self.members.endpoints()[at];
        Picked { endpoint, rule: self.number, tally: balancer.tally(), trial }
    }

    /// Any member for which `can` holds and that was not tried: one in play, else any other that could
    /// take the call. Looks at every member, which is rare.
    fn find(
        &self,
        tried: &[Arc<Endpoint>],
        can: &impl Fn(&Endpoint) -> bool,
    ) -> Option<Picked<'_>> {
        let State { wheel, balancer, has_reserve, standard, .. } = &*self.state.borrow();
        let (endpoints, excluded) = (self.members.endpoints(), self.members.positions(tried));
        let is_left = |at: &usize| !excluded.contains(at) && can(&endpoints[*at]);
        let from = fastrand::usize(..endpoints.len());
        let left = || (from..endpoints.len()).chain(0..from).filter(is_left);
        let in_play = left().find(|at| wheel.weight(*at) > 0);
        let reserve = || left().find(|at| *has_reserve && standard.admits(&endpoints[*at].load));
        let at = in_play.or_else(reserve)?;
        Some(self.picked(at, balancer, None))
    }

    /// One that is not in play but could take the call: of a later priority, of another zone, not of
    /// the subset. The call has tried all others, so an endpoint that it would not use first is
    /// better than none. Looks at every member, which is rare.
    fn reserve(&self, standard: Standard, excluded: &[usize]) -> Option<usize> {
        let can = |at: usize| standard.admits(&self.members.endpoints()[at].load);
        let is_left = |at: &usize| !excluded.contains(at) && can(*at);
        let left = || (0..self.members.len()).filter(is_left);
        let first = left().map(|at| self.members.priority(at)).min()?;
        let weight = |at| match self.members.priority(at) == first {
            true => u64::from(self.members.weight(at)),
            false => 0,
        };
        draw(left(), weight)
    }

    fn any(&self, tried: &[Arc<Endpoint>]) -> Option<Picked<'_>> {
        let (state, excluded) = (self.state.borrow(), self.members.positions(tried));
        let left = (0..self.members.len()).filter(|at| !excluded.contains(at));
        let at = draw(left, |at| u64::from(self.members.weight(at)))?;
        Some(self.picked(at, &state.balancer, None))
    }
}

/// One of these, by weight.
fn draw(positions: impl Iterator<Item = usize>, weight: impl Fn(usize) -> u64) -> Option<usize> {
    let positions: Vec<_> = positions.collect();
    let wheel = Wheel::new(positions.iter().map(|&at| weight(at)));
    wheel.draw(fastrand::u64(..), &[]).map(|at| positions[at])
}

impl Picked<'_> {
    /// Counts the attempt on the endpoint, until the returned guard is dropped. None where it holds
    /// `most` calls already; 0 allows any number.
    pub fn hold(self, most: u32) -> Option<InFlight> {
        self.endpoint.load.try_pick_with(most, self.tally, self.trial)
    }
}

#[cfg(test)]
mod tests;
