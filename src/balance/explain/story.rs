//! The stages between filter and balancer, put into words.

use std::time::Instant;

use super::{Step, address};
use crate::balance::{
    Plan,
    members::Members,
    play::{Part, Stage, Watch},
    priority::Level,
    ramp::Ramp,
    standard::Standard,
    zone::Zones,
};
use crate::model::Endpoint;

/// Endpoints that a note names; of more new ones, it tells the number.
const MOST_NAMED: usize = 5;

/// Watches the stages of one rule.
pub(super) struct Story<'a> {
    members: &'a Members,
    plan: &'a Plan,
    now: Instant,
    /// Who was in play before the stage.
    in_play: Vec<bool>,
    steps: Vec<Step>,
}

impl<'a> Story<'a> {
    pub(super) fn new(members: &'a Members, plan: &'a Plan, now: Instant) -> Self {
        Self { members, plan, now, in_play: vec![true; members.len()], steps: Vec::new() }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Why those that cannot take a call are used, where they are.
    fn usable(&self, standard: Standard) -> String {
        let all = percent(self.plan.panic_threshold.share());
        match standard {
            Standard::Well => String::new(),
            Standard::Known => {
                let sick = self.members.endpoints().iter().filter(|e| e.load.is_sick());
                let told = |e| format!("{}: {}", address(e), unusable(e, self.now));
                let told = sick.take(MOST_NAMED).map(|endpoint| told(endpoint));
                let told = told.collect::<Vec<_>>().join("; ");
                format!("fewer than {all} are well, so all are used; {told}")
            }
            Standard::Any => "all vanished from the registry, and none was dialled yet".to_owned(),
        }
    }

    fn priority(&self, levels: &[Level]) -> String {
        let level = |level: &Level| {
            let Level { priority, members, usable, load, .. } = level;
            format!("priority {priority}: {usable} of {members} usable, gets {}", percent(*load))
        };
        levels.iter().map(level).collect::<Vec<_>>().join("; ")
    }

    fn zones(&self, zones: &Zones<'_>) -> String {
        let zone = |(name, zone): (&&str, &crate::balance::zone::Zone)| {
            let name = if name.is_empty() { "no zone" } else { name };
            let (capacity, load) = (percent(zone.capacity), percent(zone.load));
            let (usable, members) = (zone.usable, zone.members);
            format!("{name}: {usable} of {members} usable, {capacity} of the weight, gets {load}")
        };
        let even = percent(1.0 / zones.len() as f64);
        let zones: Vec<_> = zones.iter().map(zone).collect();
        format!("an even share is {even}; {}", zones.join("; "))
    }

    fn new_ones(&self, ramps: &[Ramp]) -> String {
        let ramp = |ramp: &Ramp| {
            let address = address(&self.members.endpoints()[ramp.at]);
            format!("{address} has {} of its weight", percent(ramp.part))
        };
        let mut named: Vec<_> = ramps.iter().take(MOST_NAMED).map(ramp).collect();
        if ramps.len() > MOST_NAMED {
            named.push(format!("and {} others", ramps.len() - MOST_NAMED));
        }
        named.join("; ")
    }
}

impl Watch for Story<'_> {
    fn stage(&mut self, stage: &Stage<'_>, parts: &[Part]) {
        let own = self.plan.zone.as_deref().unwrap_or_default();
        let (note, reason) = match stage {
            Stage::Usable(standard) => (self.usable(*standard), String::new()),
            Stage::Priority(levels) => {
                let reason = "a priority before it carries all calls".to_owned();
                (self.priority(levels), reason)
            }
            Stage::Zone(_, zones) => {
                let reason = match zones.get(own).is_some_and(|zone| zone.load < 1.0) {
                    true => "its zone has nothing to spare".to_owned(),
                    false => format!("zone {own} carries all calls"),
                };
                (self.zones(zones), reason)
            }
            Stage::Subset(_) => (String::new(), "not among those of this proxy".to_owned()),
            Stage::SlowStart(ramps) => (self.new_ones(ramps), String::new()),
        };
        let mut dropped = Vec::new();
        let endpoints = self.members.endpoints().iter();
        for ((endpoint, part), was_in) in endpoints.zip(parts).zip(&mut self.in_play) {
            if std::mem::replace(was_in, part.is_in_play()) && !part.is_in_play() {
                let reason = match reason.is_empty() {
                    true => unusable(endpoint, self.now),
                    false => reason.clone(),
                };
                dropped.push((address(endpoint), reason));
            }
        }
        let kept = self.in_play.iter().filter(|in_play| **in_play).count();
        self.steps.push(Step { stage: stage.name(self.plan), kept, note, dropped });
    }
}

/// Why calls cannot use it.
fn unusable(endpoint: &Endpoint, now: Instant) -> String {
    let vanished = || "vanished from the registry, not dialled yet".to_owned();
    endpoint.ailment(now).unwrap_or_else(vanished)
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}
