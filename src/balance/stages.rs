//! How many endpoints each stage kept, as a choice was when an endpoint was picked from it.

use std::{cell::RefCell, rc::Rc};

use super::{
    Plan, Step,
    play::{Part, Stage, Watch},
    standard::Standard,
};
use crate::model::Selector;

/// Endpoints whose reason [`Stages::dropped`] tells; of more, it tells the number.
const MOST_NAMED: usize = 8;

/// The stages of all rules of a choice, in the order that they are taken. Made when the choice changes,
/// so that a pick has nothing to count.
#[derive(Debug, Default)]
pub struct Stages {
    steps: Vec<(Box<str>, usize)>,
    /// Where the stages of each rule end.
    ends: Vec<usize>,
    /// What each rule asks of endpoints.
    standards: Vec<Standard>,
    /// What was told of a rule, once somebody has asked.
    dropped: RefCell<Vec<(Option<usize>, Rc<str>)>>,
}

impl Stages {
    pub(super) fn new(known: usize) -> Self {
        Self { steps: vec![("known".into(), known)], ..Self::default() }
    }

    /// The next rule leaves so many members; what `Self::watch` is shown from here on is of it.
    pub(super) fn rule(&mut self, selector: &Selector, members: usize, standard: Standard) {
        self.standards.push(standard);
        self.steps.push((rule_name(selector).into(), members));
        self.ends.push(self.steps.len());
    }

    /// Counts the stages that follow, for the newest rule.
    pub(super) fn watch<'a>(&'a mut self, plan: &'a Plan) -> impl Watch + 'a {
        Counting { stages: self, plan }
    }

    /// Stage and endpoints kept, up to the rule that an endpoint was picked by; all where none was.
    pub fn up_to(&self, rule: Option<usize>) -> impl Iterator<Item = (&str, usize)> {
        let end = rule.and_then(|rule| self.ends.get(rule)).copied().unwrap_or(self.steps.len());
        self.steps[..end].iter().map(|(stage, kept)| (&**stage, *kept))
    }

    /// Why endpoints were left out by the rule that an endpoint was picked by, or the last one, in a few
    /// words. `steps` are those of the rule by its standard; they are asked for once, since they look at
    /// every endpoint.
    pub fn dropped(
        &self,
        rule: Option<usize>,
        steps: impl FnOnce(Standard) -> Vec<Step>,
    ) -> Rc<str> {
        let mut dropped = self.dropped.borrow_mut();
        if let Some((_, words)) = dropped.iter().find(|(of, _)| *of == rule) {
            return Rc::clone(words);
        }
        let standard = rule.map_or_else(|| self.standards.last(), |rule| self.standards.get(rule));
        let standard = standard.copied().unwrap_or(Standard::Well);
        let words: Rc<str> = words(&steps(standard)).into();
        dropped.push((rule, Rc::clone(&words)));
        words
    }
}

/// Name of the stage that applies a rule.
pub(super) fn rule_name(selector: &Selector) -> String {
    if selector.is_empty() { "any".to_owned() } else { format!("filter {selector}") }
}

fn words(steps: &[Step]) -> String {
    let dropped = || steps.iter().flat_map(|step| &step.dropped);
    let named = dropped().take(MOST_NAMED).map(|(address, reason)| format!("{address} {reason}"));
    let others = dropped().skip(MOST_NAMED).count();
    let others = (others > 0).then(|| format!("{others} others"));
    named.chain(others).collect::<Vec<_>>().join("; ")
}

struct Counting<'a> {
    stages: &'a mut Stages,
    plan: &'a Plan,
}

impl Watch for Counting<'_> {
    fn stage(&mut self, stage: &Stage<'_>, parts: &[Part]) {
        let kept = parts.iter().filter(|part| part.is_in_play()).count();
        self.stages.steps.push((stage.name(self.plan).into(), kept));
        if let Some(end) = self.stages.ends.last_mut() {
            *end = self.stages.steps.len();
        }
    }
}
