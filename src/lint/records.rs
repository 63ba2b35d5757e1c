//! Rules about the records of one service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Finding, Rule, Severity};
use crate::formats::{RejectReason, habits};
use crate::model::{Address, Record, ServiceName, State};
use crate::registry::{book::Entry, etcd::is_mirrored};

pub(super) static UNREADABLE: Rule = Rule {
    name: "unreadable",
    about: "records that cannot be read",
    advice: "mend or delete the key; if it is of another format, give --format",
    severity: Severity::Error,
};
pub(super) static WILDCARD: Rule = Rule {
    name: "wildcard_address",
    about: "endpoints whose address is that of every host",
    advice: "have the server register the address that others reach it at, not the one it binds to",
    severity: Severity::Error,
};
pub(super) static ALL_FORBIDDEN: Rule = Rule {
    name: "all_forbidden",
    about: "services all of whose endpoints are forbidden",
    advice: "only calls that are pinned get through; take state=forbidden off where calls may go",
    severity: Severity::Error,
};
pub(super) static NO_LEASE: Rule = Rule {
    name: "no_lease",
    about: "keys without a lease, of a format that always has one",
    advice: "left over from a crash or written by hand: they stay for ever; see whether the process \
             lives, and `pillion registry rm --key KEY` if not",
    severity: Severity::Warning,
};
pub(super) static DUPLICATE_ADDRESS: Rule = Rule {
    name: "duplicate_address",
    about: "endpoints with several keys",
    advice: "one address under several keys gets several shares of the traffic from clients that do \
             not merge them; delete the key that is left over",
    severity: Severity::Warning,
};
pub(super) static DUPLICATE_ID: Rule = Rule {
    name: "duplicate_id",
    about: "instances that share an id",
    advice: "give each instance an id of its own: a call that is pinned to one may reach the other",
    severity: Severity::Warning,
};
pub(super) static ALL_DRAINED: Rule = Rule {
    name: "all_weights_zero",
    about: "services all of whose weights are 0",
    advice: "weight 0 takes no traffic; when all are 0, calls are spread as if all were equal",
    severity: Severity::Warning,
};
pub(super) static CLOCK: Rule = Rule {
    name: "clock",
    about: "records from the future",
    advice: "set the clock of the host that wrote it, or of this one",
    severity: Severity::Warning,
};
pub(super) static MIXED: Rule = Rule {
    name: "mixed_formats",
    about: "services with records of several formats",
    advice: "pillion reads them all, clients of one framework only their own; \
             `pillion registry copy` closes the gap",
    severity: Severity::Note,
};

/// How far a clock may be ahead before it is worth telling.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

pub(super) fn look(
    service: &ServiceName,
    entries: &[Arc<Entry>],
    now: SystemTime,
    findings: &mut Vec<Finding>,
) {
    let records = || entries.iter().flat_map(|e| e.records().iter().map(move |r| (e, r)));
    let formats: BTreeSet<_> = records().map(|(_, record)| record.format).collect();
    let broken: Vec<_> = formats.iter().filter_map(|f| habits(f).breaks_over_one).collect();
    for entry in entries {
        findings.extend(unreadable(entry, &broken));
        findings.extend(no_lease(entry));
    }
    for (entry, record) in records() {
        if record.address.socket().is_some_and(|socket| socket.ip().is_unspecified()) {
            let what = format!("{} is every address of whoever dials it", record.address);
            findings.push(Finding::new(&WILDCARD, what).at(entry).on(&record.address));
        }
        findings.extend(from_the_future(entry, record, now));
    }
    duplicates(service, records(), findings);
    let all = |state| records().count() > 0 && records().all(|(_, r)| r.state() == state);
    let count = records().count();
    if all(State::Forbidden) {
        let what = format!("state=forbidden in all {count} records");
        findings.push(Finding::new(&ALL_FORBIDDEN, what).of(service));
    }
    if all(State::Drained) {
        let what = format!("weight 0 in all {count} records");
        findings.push(Finding::new(&ALL_DRAINED, what).of(service));
    }
    if formats.len() > 1 {
        let what = formats.into_iter().collect::<Vec<_>>().join(", ");
        findings.push(Finding::new(&MIXED, what).of(service));
    }
}

/// `broken` are the readers that fail for the whole service over it.
fn unreadable(entry: &Entry, broken: &[&str]) -> Option<Finding> {
    let reason = entry.rejected()?;
    // Well understood, and not for gRPC: nothing is wrong with it.
    if matches!(reason, RejectReason::NotGrpc(_)) {
        return None;
    }
    let what = match broken {
        [] => reason.to_string(),
        _ => format!("{reason}; {} clients see no endpoint at all", broken.join(" and ")),
    };
    Some(Finding::new(&UNREADABLE, what).at(entry))
}

fn no_lease(entry: &Entry) -> Option<Finding> {
    let record = entry.records().first().filter(|_| entry.kv.lease == 0)?;
    let leased = habits(record.format).always_leased;
    let what = || format!("a {} record that no lease ends", record.format);
    leased.then(|| Finding::new(&NO_LEASE, what()).at(entry).on(&record.address))
}

fn duplicates<'a>(
    service: &ServiceName,
    records: impl Iterator<Item = (&'a Arc<Entry>, &'a Record)>,
    findings: &mut Vec<Finding>,
) {
    let mut keys: BTreeMap<&str, (&Address, BTreeSet<&str>)> = BTreeMap::new();
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (entry, record) in records {
        // A copy that a mirror keeps beside the original goes as soon as the mirror has seen it.
        if !is_mirrored(entry.kv.lease) {
            let address = record.address.as_str();
            let (_, keys) = keys.entry(address).or_insert((&record.address, BTreeSet::new()));
            keys.insert(&entry.key);
        }
        ids.entry(&record.id).or_default().insert(record.address.as_str());
    }
    for (address, keys) in keys.into_values().filter(|(_, keys)| keys.len() > 1) {
        let what = keys.into_iter().collect::<Vec<_>>().join(" and ");
        findings.push(Finding::new(&DUPLICATE_ADDRESS, what).of(service).on(address));
    }
    for (id, addresses) in ids.into_iter().filter(|(_, addresses)| addresses.len() > 1) {
        let addresses = addresses.into_iter().collect::<Vec<_>>().join(" and ");
        let what = format!("{addresses} have the id {id:?}");
        findings.push(Finding::new(&DUPLICATE_ID, what).of(service));
    }
}

/// Some frameworks write down when; one that lies ahead tells of a clock.
fn from_the_future(entry: &Entry, record: &Record, now: SystemTime) -> Option<Finding> {
    let stamps = record.metadata.iter().filter(|(k, _)| k.to_lowercase().ends_with("timestamp"));
    let (name, ahead) = stamps
        .filter_map(|(key, value)| {
            let ahead = time(value.parse().ok()?)?.duration_since(now).ok()?;
            (ahead > CLOCK_SLACK).then_some((key, ahead))
        })
        .next()?;
    let ahead = humantime::format_duration(Duration::from_secs(ahead.as_secs()));
    let what = format!("its {name} is {ahead} ahead of the clock here");
    Some(Finding::new(&CLOCK, what).at(entry).on(&record.address))
}

/// Seconds, or thousandths, millionths or billionths of them, whichever it can only be.
fn time(stamp: u64) -> Option<SystemTime> {
    let since = match stamp {
        0..100_000_000_000 => Duration::from_secs(stamp),
        100_000_000_000..100_000_000_000_000 => Duration::from_millis(stamp),
        100_000_000_000_000..100_000_000_000_000_000 => Duration::from_micros(stamp),
        _ => Duration::from_nanos(stamp),
    };
    UNIX_EPOCH.checked_add(since)
}
