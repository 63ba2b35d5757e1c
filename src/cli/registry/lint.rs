//! `pillion registry lint`: what is wrong with a registry, and what to do about it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    time::{Duration, SystemTime},
};

use clap::{Args, builder::PossibleValuesParser};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{Place, Progress, duration, read};
use crate::cli::{
    columns::columns,
    failure::Failure,
    output::{Output, counted},
};
use crate::lint::{Facts, Finding, RULES, Rule, Severity, lint};
use crate::model::{Address, Record, ServiceName};
use crate::networks::Networks;
use crate::probe::{self, ProbeError};
use crate::registry::{
    book::{Book, Scope},
    etcd::LeaseId,
};

/// Find what is wrong in etcd, and say what to do about it
///
/// Reads all records and their leases, connects to every endpoint, and exits with 1 when it finds
/// errors or warnings. Notes are worth knowing and no more. It changes nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Lint {
    /// Only this service; rules that compare services then find nothing
    service: Option<ServiceName>,

    /// Do not connect to the endpoints
    #[arg(long)]
    no_dial: bool,

    /// Longest time that an endpoint may take for each of name, TCP and HTTP/2
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    dial_timeout: Duration,

    /// Endpoints that are connected to at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    dials: u16,

    /// Leave this rule out; repeat for several
    #[arg(long, value_name = "RULE")]
    #[arg(value_parser = PossibleValuesParser::new(RULES.iter().map(|rule| rule.name)))]
    allow: Vec<String>,

    /// How to print what is found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry lint --prefix /microservices
  pillion registry lint orders --dial-timeout 300ms
  pillion registry lint --no-dial --allow no_lease
  pillion registry lint -o json | jq -r '.findings[] | select(.rule == \"no_lease\") | .key'";

/// Findings of one rule that a table shows.
const SHOWN: usize = 20;

#[derive(Debug, Serialize)]
struct Report {
    revision: i64,
    prefix: String,
    services: usize,
    keys: usize,
    /// Endpoints that were connected to, or tried to.
    dialled: usize,
    findings: Vec<View>,
}

#[derive(Debug, Serialize)]
struct View {
    severity: &'static str,
    rule: &'static str,
    service: Option<String>,
    key: Option<String>,
    address: Option<String>,
    what: String,
    advice: &'static str,
    #[serde(skip)]
    of: &'static Rule,
}

impl Lint {
    pub(super) async fn run(self, place: Place) -> Result<(), Failure> {
        let scope = match &self.service {
            Some(service) => super::ls::scope_of(&place, service)?,
            None => Scope::whole(place.layout.clone()),
        };
        let prefix = scope.prefix().to_owned();
        let (book, member, position) = read(&place, scope).await?;
        if let Some(service) = &self.service
            && book.entries().next().is_none()
        {
            return Err(super::ls::absent(&place, service, &prefix, position.revision).await);
        }
        let leases = book.entries().filter_map(|entry| LeaseId::of(entry.kv.lease));
        let facts = Facts {
            lives: member.lives(leases).await.map_err(Failure::failed)?,
            probes: self.dial(&book, &place.networks).await,
            networks: place.networks.clone(),
            now: SystemTime::now(),
            entries: book.entries().cloned().collect(),
            // A list of one service shows keys of others, which are not stray.
            strays: if self.service.is_none() { book.strays().to_vec() } else { Vec::new() },
        };
        let mut findings = lint(&facts);
        findings.retain(|finding| !self.allow.iter().any(|rule| rule == finding.rule.name));
        let bad = findings.iter().filter(|finding| finding.severity != Severity::Note).count();
        let services: HashSet<_> = facts.entries.iter().map(|entry| &entry.service).collect();
        let report = Report {
            revision: position.revision,
            prefix,
            services: services.len(),
            keys: facts.entries.len(),
            dialled: facts.probes.len(),
            findings: findings.iter().map(View::from).collect(),
        };
        self.output.print(&report, table)?;
        match bad {
            0 => Ok(()),
            1 => Err(found("1 thing is wrong")),
            _ => Err(found(&format!("{bad} things are wrong"))),
        }
    }

    /// Connects once to every address at which an endpoint may be.
    async fn dial(
        &self,
        book: &Book,
        networks: &Networks,
    ) -> HashMap<Address, Result<(), ProbeError>> {
        if self.no_dial {
            return HashMap::new();
        }
        let may_be = |record: &&Record| {
            record.address.socket().is_none_or(|socket| networks.check(socket).is_ok())
        };
        let records = book.entries().flat_map(|entry| entry.records()).filter(may_be);
        let addresses: HashMap<&Address, bool> =
            records.map(|record| (&record.address, record.tls)).collect();
        let mut progress = Progress::start("endpoints connected to");
        let limit = self.dial_timeout;
        let dial = |(address, tls): (&Address, bool)| {
            let address = address.clone();
            async move {
                let done = match tls {
                    // How it goes on is between the two of them.
                    true => probe::connect(&address, networks, limit).await.map(drop),
                    false => probe::probe(&address, networks, limit).await,
                };
                (address, done)
            }
        };
        let mut count = 0;
        let dials = stream::iter(addresses).map(dial).buffer_unordered(self.dials.into());
        let probes = dials.inspect(|_| {
            count += 1;
            progress.tell(count);
        });
        let probes = probes.collect().await;
        progress.end();
        probes
    }
}

fn found(text: &str) -> Failure {
    Failure::failed(io::Error::other(text.to_owned()))
}

impl From<&Finding> for View {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.as_str(),
            rule: finding.rule.name,
            service: finding.service.as_ref().map(ToString::to_string),
            key: finding.key.as_ref().map(ToString::to_string),
            address: finding.address.as_ref().map(ToString::to_string),
            what: finding.what.clone(),
            advice: finding.rule.advice,
            of: finding.rule,
        }
    }
}

fn table(report: &Report) -> String {
    let Report { revision, prefix, services, keys, dialled, findings } = report;
    let mut groups: BTreeMap<usize, Vec<&View>> = BTreeMap::new();
    let mut order = Vec::new();
    for finding in findings {
        let group = (finding.severity, finding.rule);
        let at = order.iter().position(|known| *known == group).unwrap_or_else(|| {
            order.push(group);
            order.len() - 1
        });
        groups.entry(at).or_default().push(finding);
    }
    let mut text = String::new();
    for group in groups.values() {
        text.push_str(&section(group));
    }
    let count = |one: &str| counted(findings.iter().filter(|f| f.severity == one).count(), one);
    text.push_str(&format!(
        "{}, {} below {prefix:?} at revision {revision}, {} connected to: {}, {}, {}\n",
        counted(*services, "service"),
        counted(*keys, "key"),
        counted(*dialled, "endpoint"),
        count("error"),
        count("warning"),
        count("note")
    ));
    text
}

fn section(group: &[&View]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let rule = first.of;
    let mut text = format!("{} {}: {}\n", first.severity.to_uppercase(), rule.name, rule.about);
    let cell = |text: &Option<String>| text.clone().unwrap_or_default();
    let row = |f: &&View| [cell(&f.service), cell(&f.address), cell(&f.key), f.what.clone()];
    let rows: Vec<_> = group.iter().take(SHOWN).map(row).collect();
    for line in columns(["SERVICE", "ADDRESS", "KEY", "WHAT"], &rows).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    if group.len() > SHOWN {
        let more = group.len() - SHOWN;
        text.push_str(&format!("  and {more} more, all of them with -o json\n"));
    }
    text.push_str(&format!("  -> {}\n\n", rule.advice));
    text
}
