//! Rules about the leases that keys live under.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Facts, Finding, Rule, Severity};
use crate::registry::{
    book::Entry,
    etcd::{LeaseId, is_mirrored},
};

pub(super) static OVER_GRANTED: Rule = Rule {
    name: "lease_over_granted",
    about: "leases with more time left than they were granted",
    advice: "etcd gives them more after each change of its leader: dead endpoints stay for longer; \
             see why leaders change",
    severity: Severity::Warning,
};
pub(super) static SHORT: Rule = Rule {
    name: "lease_short",
    about: "leases of less than 5 s",
    advice: "one slow answer of etcd, and the endpoint is gone; grant at least 10 s",
    severity: Severity::Warning,
};
pub(super) static SHARED: Rule = Rule {
    name: "lease_shared",
    about: "leases with more than 1000 keys",
    advice: "when it ends, all of them go at once, in one large change; use one lease an instance",
    severity: Severity::Warning,
};
pub(super) static LONG: Rule = Rule {
    name: "lease_long",
    about: "leases of more than an hour",
    advice: "an instance that dies stays that long",
    severity: Severity::Note,
};
pub(super) static NOT_KEPT: Rule = Rule {
    name: "lease_not_kept",
    about: "leases that nobody seems to keep alive",
    advice: "less than a third of the time is left; frameworks renew sooner, so the process may be \
             dead or cut off from etcd",
    severity: Severity::Note,
};

const TINY: Duration = Duration::from_secs(5);
const HUGE: Duration = Duration::from_secs(3600);
const MANY: usize = 1000;
/// Two answers of etcd, in whole seconds, may differ by as much.
const ROUNDING: Duration = Duration::from_secs(1);

pub(super) fn look(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut leases: BTreeMap<i64, Vec<&Arc<Entry>>> = BTreeMap::new();
    for entry in &facts.entries {
        leases.entry(entry.kv.lease).or_default().push(entry);
    }
    for (raw, entries) in leases {
        let (Some(id), Some(first)) = (LeaseId::of(raw), entries.first()) else { continue };
        let keys = entries.len();
        let mut find = |rule, what: String| {
            let what = match keys {
                1 => what,
                _ => format!("{what}; {keys} keys are under it"),
            };
            findings.push(Finding::new(rule, what).at(first));
        };
        // A mirror keeps all its copies under one, by design.
        if keys > MANY && !is_mirrored(raw) {
            find(&SHARED, format!("lease {id}"));
        }
        let Some(life) = facts.lives.get(&id) else { continue };
        let (granted, left) = (life.granted.as_secs(), life.left.as_secs());
        let what = || format!("lease {id} has {left} s of {granted} s left");
        if life.left > life.granted + ROUNDING {
            find(&OVER_GRANTED, what());
        }
        if life.granted < TINY && !is_mirrored(raw) {
            find(&SHORT, what());
        }
        if life.granted > HUGE {
            find(&LONG, what());
        } else if life.left < life.granted / 3 {
            find(&NOT_KEPT, what());
        }
    }
}
