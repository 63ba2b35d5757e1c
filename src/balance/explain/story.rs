//! The stages between filter and balancer, put into words.

use super::{Step, address};
use crate::balance::{
    Plan,
    members::Members,
    play::{Part, Stage, Watch},
    priority::Level,
    ramp::Ramp,
    zone::Zones,
};
use crate::model::Endpoint;

/// New endpoints that a note names; of more, it tells the number.
const MOST_NAMED: usize = 5;

/// Watches the stages of one rule.
pub(super) struct Story<'a> {
    members: &'a Members,
    plan: &'a Plan,
    /// Who was in play before the stage.
    in_play: Vec<bool>,
    steps: Vec<Step>,
}

impl<'a> Story<'a> {
    pub(super) fn new(members: &'a Members, plan: &'a Plan) -> Self {
        Self { members, plan, in_play: vec![true; members.len()], steps: Vec::new() }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
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
            Stage::Usable => (String::new(), String::new()),
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
                let reason = if reason.is_empty() { unusable(endpoint) } else { &reason };
                dropped.push((address(endpoint), reason.to_owned()));
            }
        }
        let kept = self.in_play.iter().filter(|in_play| **in_play).count();
        self.steps.push(Step { stage: stage.name(self.plan), kept, note, dropped });
    }
}

/// Why calls cannot use it.
fn unusable(endpoint: &Endpoint) -> &'static str {
    match endpoint.load.is_doubtful() {
        true => "vanished from the registry, not dialled yet",
        false => "cannot take calls now",
    }
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}
