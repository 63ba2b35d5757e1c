//! Who of the members is in play, and for which part of the calls, stage by stage:
//!
//! ```text
//! members ─▶ usable ─▶ priority ─▶ zone ─▶ subset ─▶ slow start ─▶ balancer
//! ```
//!
//! A stage looks at the parts that the one before it left, and changes them; a part of 0 is out of
//! play. Capacity is what counts for priority and zone, so they stand before the subset, which would
//! show each proxy another one; and a new endpoint is capacity, so the slow start stands last.

use std::time::Instant;

use super::{
    Plan,
    members::Members,
    priority::{Level, prioritise},
    ramp::{Ramp, ramps, step},
    standard::Standard,
    subset::narrow,
    wheel::Wheel,
    zone::{Zones, prefer},
};

/// Weight of the largest part in a draw. Exact enough, and calls in flight can be multiplied by it.
const HEAVIEST: f64 = (1_u64 << 32) as f64;

/// A member's part of the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// As a weight: relative to the parts of the others. 0 is out of play.
    pub(super) size: f64,
    /// Whether the endpoint can take a call. One that cannot keeps the part that it would have, since
    /// it may be back soon and keys are to find it where it was, but no call.
    pub(super) usable: bool,
}

impl Part {
    /// Whether it takes calls now.
    pub(super) fn is_in_play(&self) -> bool {
        self.usable && self.size > 0.0
    }
}

/// Who is in play.
#[derive(Debug, Default)]
pub(super) struct Play {
    /// One a member; none where all are usable and have their registered weight.
    pub(super) parts: Option<Vec<Part>>,
    /// Members that have only a part of their part yet.
    pub(super) ramps: Vec<Ramp>,
    /// When that is to be looked at again.
    pub(super) due: Option<Instant>,
}

impl Play {
    /// The weights to draw by.
    pub(super) fn wheel(&self, members: &Members) -> Wheel {
        let Some(parts) = &self.parts else { return Wheel::new(members.weights().map(u64::from)) };
        let size = |part: &Part| if part.is_in_play() { part.size } else { 0.0 };
        let mut sizes: Vec<_> = parts.iter().map(size).collect();
        self.ramps.iter().for_each(|ramp| sizes[ramp.at] *= ramp.part);
        let heaviest = sizes.iter().copied().fold(0.0, f64::max);
        let weight = |size: &f64| match *size > 0.0 {
            true => (size / heaviest * HEAVIEST).max(1.0) as u64,
            false => 0,
        };
        Wheel::new(sizes.iter().map(weight))
    }
}

/// A stage that has been taken.
#[derive(Debug)]
pub(super) enum Stage<'a> {
    /// Endpoints that are not up to this are out.
    Usable(Standard),
    /// Levels, the first one first.
    Priority(&'a [Level]),
    /// Zones of the level of a priority.
    Zone(u32, &'a Zones<'a>),
    /// At most so many are in.
    Subset(usize),
    /// These are new.
    SlowStart(&'a [Ramp]),
}

impl Stage<'_> {
    /// What reports call it.
    pub(super) fn name(&self, plan: &Plan) -> String {
        let own = plan.zone.as_deref().unwrap_or_default();
        match self {
            Self::Usable(_) => "usable".to_owned(),
            Self::Priority(_) => "priority".to_owned(),
            Self::Zone(0, _) => format!("zone {own}"),
            Self::Zone(priority, _) => format!("zone {own} of priority {priority}"),
            Self::Subset(size) => format!("subset {size}"),
            Self::SlowStart(_) => {
                format!("slow_start {}", humantime::format_duration(plan.slow_start))
            }
        }
    }
}

/// Is shown each stage that is taken, and the parts that it left.
pub(super) trait Watch {
    fn stage(&mut self, stage: &Stage<'_>, parts: &[Part]);
}

/// Takes the stages, of which the first one leaves those that are up to `standard`.
pub(super) fn play(
    members: &Members,
    plan: &Plan,
    standard: Standard,
    now: Instant,
    watch: &mut impl Watch,
) -> Play {
    let ramps = ramps(members, plan.slow_start, now);
    let due = (!ramps.is_empty()).then(|| now + step(plan.slow_start));
    let is_usable = |at: usize| standard.admits(&members.endpoints()[at].load);
    let all_usable = (0..members.len()).all(is_usable);
    let narrows = plan.subset > 0 && plan.subset < members.len();
    let is_plain = all_usable && standard == Standard::Well && members.are_equal();
    if is_plain && plan.zone.is_none() && !narrows && ramps.is_empty() {
        return Play { parts: None, ramps, due };
    }
    let part = |(at, weight)| Part { size: f64::from(weight), usable: is_usable(at) };
    let mut parts: Vec<_> = members.weights().enumerate().map(part).collect();
    if standard != Standard::Well || !all_usable {
        watch.stage(&Stage::Usable(standard), &parts);
    }
    let mut levels = vec![0];
    if !members.are_equal() {
        let told = prioritise(members, &mut parts);
        watch.stage(&Stage::Priority(&told), &parts);
        levels = told.iter().filter(|level| level.load > 0.0).map(|level| level.priority).collect();
    }
    if let Some(own) = &plan.zone {
        for priority in levels {
            let told = prefer(members, priority, own, &mut parts);
            watch.stage(&Stage::Zone(priority, &told), &parts);
        }
    }
    if narrows && parts.iter().filter(|part| part.is_in_play()).count() > plan.subset {
        narrow(members, plan.subset, plan.node, plan.zone.as_deref(), &mut parts);
        watch.stage(&Stage::Subset(plan.subset), &parts);
    }
    if !ramps.is_empty() {
        watch.stage(&Stage::SlowStart(&ramps), &parts);
    }
    Play { parts: Some(parts), ramps, due }
}
