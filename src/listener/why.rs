//! `pillion-why`: what was decided for a call, in one line, for a caller who asked.

use std::fmt::Write;

use crate::{
    call::{CallMeta, Spent, bounded, millis},
    clock,
};

/// Longest name, filter or pin that is told, in bytes.
const MOST_TEXT: usize = 256;
/// Longest list of stages, or of endpoints left out.
const MOST_LIST: usize = 1024;

/// Route, filter, the stages with the endpoints that each kept, whom the last ones left out and why, and
/// where the time went. A few KiB at most, however long the texts of the caller and however many the
/// endpoints.
pub(super) fn line(meta: &CallMeta) -> String {
    let mut why = match meta.target.get() {
        Some(target) => {
            let known = target.view.service().snapshot().endpoints.len();
            format!("service={} known={known}", target.view.name())
        }
        None => "service=unknown".to_owned(),
    };
    let mut tell = |name: &str, text: Option<&str>, most: usize| {
        if let Some(text) = text {
            // Writing to a text cannot fail.
            let _ = write!(why, " {name}={:?}", bounded(text, most));
        }
    };
    let target = meta.target.get();
    let route = target.and_then(|target| target.rule.as_ref()).map(|rule| rule.name());
    tell("route", route.or_else(|| meta.answered_by.get()).map(|name| &**name), MOST_TEXT);
    tell("filter", target.map(|target| &**target.selectors.text()), MOST_TEXT);
    tell("rule", meta.rule().as_deref(), MOST_TEXT);
    tell("node", meta.pin.get().map(|pin| &**pin), MOST_TEXT);
    tell("balance", target.map(|target| target.policy.balance.as_str()), MOST_TEXT);
    let stages = meta.stages();
    let stages: Vec<_> = stages.iter().map(|(stage, kept)| format!("{stage} {kept}")).collect();
    let stages = stages.join(" > ");
    tell("stages", (!stages.is_empty()).then_some(&*stages), MOST_LIST);
    tell("dropped", meta.dropped().filter(|text| !text.is_empty()).as_deref(), MOST_LIST);
    tell("not_retried", meta.not_retried.get(), MOST_TEXT);
    let spent = Spent::new(meta, clock::now(), None);
    let _ = write!(why, " attempts={} total={}ms", meta.attempts(), millis(spent.total));
    let parts = spent.to_string();
    if !parts.is_empty() {
        let _ = write!(why, "; {parts}");
    }
    why
}
