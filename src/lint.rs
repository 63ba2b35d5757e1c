//! What is wrong with a registry, or will be: rules over what was found there.
//!
//! [`lint`] is a pure function of [`Facts`]; `pillion registry lint` gathers them and shows what comes
//! of it. A rule is an entry of [`RULES`] and a few lines in one of the files below.

mod leases;
mod names;
mod reach;
mod records;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use crate::model::{Address, ServiceName};
use crate::networks::Networks;
use crate::probe::ProbeError;
use crate::registry::{
    book::{Entry, weighed},
    etcd::{LeaseId, LeaseLife},
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Calls fail because of it, or go where they must not.
    Error,
    /// Calls may fail because of it, or it is a left-over.
    Warning,
    /// Worth knowing; a registry with nothing but notes is clean.
    Note,
}

impl Severity {
    /// Lower-case name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something to look for.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name, for `--allow` and in JSON.
    pub name: &'static str,
    /// What it finds, as a heading.
    pub about: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    severity: Severity,
}

impl Rule {
    /// How bad it usually is.
    pub const fn severity(&self) -> Severity {
        self.severity
    }
}

/// All there is to look for, in the order of reports.
pub const RULES: &[&Rule] = &[
    &records::UNREADABLE,
    &records::WILDCARD,
    &reach::REFUSED,
    &records::ALL_FORBIDDEN,
    &reach::UNREACHABLE,
    &reach::SILENT,
    &reach::NOT_HTTP2,
    &records::NO_LEASE,
    &records::DUPLICATE_ADDRESS,
    &records::DUPLICATE_ID,
    &records::ALL_DRAINED,
    &records::CLOCK,
    &names::PREFIX_COLLISION,
    &names::NESTED,
    &leases::OVER_GRANTED,
    &leases::SHORT,
    &leases::SHARED,
    &leases::LONG,
    &leases::NOT_KEPT,
    &records::MIXED,
    &names::STRAY,
];

/// What was found in the registry, and on asking its endpoints.
#[derive(Debug)]
pub struct Facts {
    /// Every key that belongs to a service.
    pub entries: Vec<Arc<Entry>>,
    /// Keys that belong to none.
    pub strays: Vec<Arc<str>>,
    /// What their leases have left; those that are gone are not in it.
    pub lives: HashMap<LeaseId, LeaseLife>,
    /// What became of a connection to each address; empty when none was made.
    pub probes: HashMap<Address, Result<(), ProbeError>>,
    /// Where endpoints may be.
    pub networks: Networks,
    /// When it was found.
    pub now: SystemTime,
}

/// One thing that a rule has found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which rule.
    pub rule: &'static Rule,
    /// How bad it is here, which may be less than the rule's usual.
    pub severity: Severity,
    /// Of which service, if of one.
    pub service: Option<ServiceName>,
    /// At which key, if at one.
    pub key: Option<Arc<str>>,
    /// Of which endpoint, if of one.
    pub address: Option<Address>,
    /// What, in the words of this case.
    pub what: String,
}

impl Finding {
    fn new(rule: &'static Rule, what: impl Into<String>) -> Self {
        let (severity, what) = (rule.severity, what.into());
        Self { rule, severity, service: None, key: None, address: None, what }
    }

    fn of(self, service: &ServiceName) -> Self {
        Self { service: Some(service.clone()), ..self }
    }

    fn at(self, entry: &Entry) -> Self {
        Self { key: Some(Arc::clone(&entry.key)), ..self.of(&entry.service) }
    }

    fn on(self, address: &Address) -> Self {
        Self { address: Some(address.clone()), ..self }
    }
}

/// The keys of each service.
type Services<'a> = BTreeMap<&'a ServiceName, Vec<Arc<Entry>>>;

/// Everything that the rules find, the worst first.
pub fn lint(facts: &Facts) -> Vec<Finding> {
    let mut services = Services::new();
    for entry in &facts.entries {
        services.entry(&entry.service).or_default().push(Arc::clone(entry));
    }
    for entries in services.values_mut() {
        *entries = weighed(std::mem::take(entries));
    }
    let mut findings = Vec::new();
    for (service, entries) in &services {
        records::look(service, entries, facts.now, &mut findings);
    }
    names::look(&services, &facts.strays, &mut findings);
    leases::look(facts, &mut findings);
    reach::look(&services, facts, &mut findings);
    let place = |rule: &Rule| RULES.iter().position(|known| **known == *rule);
    findings.sort_by(|a, b| {
        let order = |f: &Finding| (f.severity, place(f.rule), f.service.clone(), f.key.clone());
        order(a).cmp(&order(b))
    });
    findings
}

#[cfg(test)]
mod tests;
