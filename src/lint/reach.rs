//! Rules about where endpoints are, and what became of a connection to each.

use std::collections::BTreeSet;

use super::{Facts, Finding, Rule, Services, Severity};
use crate::probe::ProbeError;

pub(super) static REFUSED: Rule = Rule {
    name: "refused_address",
    about: "endpoints at addresses to which no call is sent",
    advice: "nothing that serves calls is there: find out who wrote the record; if it is meant, see \
             `allow` and `deny` of the source, and give -c FILE",
    severity: Severity::Error,
};
pub(super) static UNREACHABLE: Rule = Rule {
    name: "unreachable",
    about: "endpoints that cannot be connected to from this host",
    advice: "is the process running, does it listen on that address, and does this host reach it? \
             If it is gone for good, delete its key",
    severity: Severity::Error,
};
pub(super) static SILENT: Rule = Rule {
    name: "silent",
    about: "endpoints that do not answer",
    advice: "a firewall that drops packets, a host that is gone, or a process that hangs; every call \
             that meets it waits for connect_timeout",
    severity: Severity::Error,
};
pub(super) static NOT_HTTP2: Rule = Rule {
    name: "not_http2",
    about: "endpoints that answer, but not in plaintext HTTP/2",
    advice: "register the port that serves gRPC; if it serves TLS, its record must say so",
    severity: Severity::Error,
};

pub(super) fn look(services: &Services<'_>, facts: &Facts, findings: &mut Vec<Finding>) {
    for entries in services.values() {
        let mut seen = BTreeSet::new();
        let records = entries.iter().flat_map(|e| e.records().iter().map(move |r| (e, r)));
        for (entry, record) in records {
            if let Some(socket) = record.address.socket()
                && let Err(refused) = facts.networks.check(socket)
            {
                // An unspecified address is a finding of its own.
                if !socket.ip().is_unspecified() {
                    let found = Finding::new(&REFUSED, refused.to_string());
                    findings.push(found.at(entry).on(&record.address));
                }
                continue;
            }
            let Some(Err(error)) = facts.probes.get(&record.address) else { continue };
            if !seen.insert(record.address.as_str()) {
                continue;
            }
            let rule = match error {
                ProbeError::Refused(_) => &REFUSED,
                ProbeError::Name(_) | ProbeError::Unreachable(_) => &UNREACHABLE,
                ProbeError::NoTcp(_) | ProbeError::NoSettings(_) => &SILENT,
                ProbeError::Closed
                | ProbeError::GoAway
                | ProbeError::Tls
                | ProbeError::Http1
                | ProbeError::Other(_) => &NOT_HTTP2,
            };
            findings.push(Finding::new(rule, error.to_string()).at(entry).on(&record.address));
        }
    }
}
