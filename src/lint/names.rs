//! Rules about the names of services, beside each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Finding, Rule, Services, Severity};
use crate::formats::habits;
use crate::model::ServiceName;

pub(super) static PREFIX_COLLISION: Rule = Rule {
    name: "prefix_collision",
    about: "services whose name another one's begins with",
    advice: "readers that list without the last slash take the endpoints of one for those of the \
             other; rename one of them (pillion itself is not concerned)",
    severity: Severity::Warning,
};
pub(super) static NESTED: Rule = Rule {
    name: "nested_service",
    about: "services in the folder of another",
    advice: "readers that show whole folders send calls of the outer service to the inner one's \
             endpoints; move one of them (pillion itself is not concerned)",
    severity: Severity::Warning,
};
pub(super) static STRAY: Rule = Rule {
    name: "stray_keys",
    about: "keys that belong to no service",
    advice: "nothing reads them; with --prefix only the registry's own keys are looked at",
    severity: Severity::Note,
};

/// How many names a finding shows.
const SHOWN: usize = 3;

pub(super) fn look(services: &Services<'_>, strays: &[Arc<str>], findings: &mut Vec<Finding>) {
    let names: BTreeMap<String, &ServiceName> =
        services.keys().map(|name| (name.key().into_owned(), *name)).collect();
    for (key, name) in &names {
        let formats: BTreeSet<_> = services[*name]
            .iter()
            .flat_map(|entry| entry.records())
            .map(|record| record.format)
            .collect();
        let begun =
            names.range(key.clone()..).skip(1).take_while(|(other, _)| other.starts_with(key));
        let (nested, longer): (Vec<_>, Vec<_>) =
            begun.map(|(other, _)| &**other).partition(|other| other[key.len()..].starts_with('/'));
        for format in &formats {
            let habits = habits(format);
            if let Some(reader) = habits.lists_without_slash.filter(|_| !longer.is_empty()) {
                let what = format!("{reader} shows {} under it", shown(&longer));
                let finding = Finding::new(&PREFIX_COLLISION, what).of(name);
                // Where only some old versions of a reader do so, it is no more than a note.
                let severity = match *format {
                    "koala" => finding.severity,
                    _ => Severity::Note,
                };
                findings.push(Finding { severity, ..finding });
            }
            if let Some(reader) = habits.shows_nested.filter(|_| !nested.is_empty()) {
                let what = format!("{reader} shows {} under it", shown(&nested));
                findings.push(Finding::new(&NESTED, what).of(name));
            }
        }
    }
    if let Some(first) = strays.first() {
        let count = strays.len();
        findings.push(Finding::new(&STRAY, format!("{count} of them, such as {first}")));
    }
}

fn shown(names: &[&str]) -> String {
    let first = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
