//! `pillion registry ls`: the services in etcd, or the records of one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::Args;
use serde::Serialize;

use super::{Place, read, view::RecordView};
use crate::cli::{
    columns::columns,
    failure::Failure,
    output::{Output, counted},
};
use crate::config::nearest;
use crate::model::{Record, ServiceName};
use crate::registry::{
    book::{Book, Entry, Scope, weighed},
    etcd::{LeaseId, LeaseLife, is_mirrored},
};

/// Show the services that etcd holds, or the records of one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ls {
    /// Show the records of this service
    service: Option<ServiceName>,

    /// How to print what is found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry ls --etcd http://10.0.0.1:2379
  pillion registry ls --prefix /microservices
  pillion registry ls orders
  pillion registry ls orders -o json | jq -r '.endpoints[] | select(.lease == null) | .key'

TTL is what the lease of the key has left and what it was granted; a key without a lease stays
until somebody deletes it. `copy` marks what `pillion registry copy` keeps there.";

#[derive(Debug, Serialize)]
struct Services {
    revision: i64,
    prefix: String,
    services: Vec<Listed>,
    /// Keys that belong to no service.
    other_keys: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    endpoints: usize,
    rejected: usize,
    formats: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Detail {
    name: String,
    revision: i64,
    prefix: String,
    endpoints: Vec<Endpoint>,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    #[serde(flatten)]
    record: RecordView,
    key: String,
    /// Revision of its last change.
    modified: i64,
    /// None for a key that stays until it is deleted.
    lease: Option<Lease>,
}

#[derive(Debug, Serialize)]
struct Lease {
    id: String,
    /// Seconds; none when it has just ended.
    granted: Option<u64>,
    left: Option<u64>,
    copy: bool,
}

#[derive(Debug, Serialize)]
struct Rejected {
    key: String,
    reason: String,
}

impl Ls {
    pub(super) async fn run(self, place: Place) -> Result<(), Failure> {
        match self.service {
            Some(service) => detail(&place, service, self.output).await,
            None => list(&place, self.output).await,
        }
    }
}

async fn list(place: &Place, output: Output) -> Result<(), Failure> {
    let scope = Scope::whole(place.layout.clone());
    let prefix = scope.prefix().to_owned();
    let (book, _, position) = read(place, scope).await?;
    let other_keys = book.strays().iter().map(ToString::to_string).collect();
    let services = services(&book);
    output
        .print(&Services { revision: position.revision, prefix, services, other_keys }, list_table)
}

fn services(book: &Book) -> Vec<Listed> {
    let mut services: BTreeMap<&ServiceName, Vec<&Entry>> = BTreeMap::new();
    for entry in book.entries() {
        services.entry(&entry.service).or_default().push(entry);
    }
    let listed = |(name, entries): (&ServiceName, Vec<&Entry>)| {
        let records = || entries.iter().flat_map(|entry| entry.records());
        Listed {
            name: name.to_string(),
            endpoints: records().map(|r| r.address.as_str()).collect::<BTreeSet<_>>().len(),
            rejected: entries.iter().filter(|entry| entry.rejected().is_some()).count(),
            formats: records().map(|r| r.format).collect::<BTreeSet<_>>().into_iter().collect(),
        }
    };
    services.into_iter().map(listed).collect()
}

fn list_table(list: &Services) -> String {
    let Services { revision, prefix, services, other_keys } = list;
    let row = |s: &Listed| {
        let rejected = if s.rejected == 0 { String::new() } else { s.rejected.to_string() };
        [s.name.clone(), s.endpoints.to_string(), rejected, s.formats.join(",")]
    };
    let mut text = match services.is_empty() {
        true => format!("no service below {prefix:?} at revision {revision}\n"),
        false => {
            let rows: Vec<_> = services.iter().map(row).collect();
            columns(["SERVICE", "ENDPOINTS", "REJECTED", "FORMATS"], &rows)
        }
    };
    if let Some(first) = other_keys.first() {
        let count = other_keys.len();
        text.push_str(&format!("\nkeys that belong to no service: {count}, such as {first}\n"));
    }
    text
}

async fn detail(place: &Place, service: ServiceName, output: Output) -> Result<(), Failure> {
    let scope = scope_of(place, &service)?;
    let prefix = scope.prefix().to_owned();
    let (book, member, position) = read(place, scope).await?;
    if book.entries().next().is_none() {
        return Err(absent(place, &service, &prefix, position.revision).await);
    }
    let leases = book.entries().filter_map(|entry| LeaseId::of(entry.kv.lease));
    let lives = member.lives(leases).await.map_err(Failure::failed)?;
    let endpoint = |entry: &Entry, record: &Record| Endpoint {
        record: record.into(),
        key: entry.key.to_string(),
        modified: entry.kv.modified,
        lease: lease(entry.kv.lease, &lives),
    };
    let entries = weighed(book.entries().cloned().collect());
    let endpoints = entries
        .iter()
        .flat_map(|entry| entry.records().iter().map(move |record| endpoint(entry, record)));
    let rejected = book.entries().filter_map(|entry| {
        let reason = entry.rejected()?.to_string();
        Some(Rejected { key: entry.key.to_string(), reason })
    });
    let detail = Detail {
        name: service.to_string(),
        revision: position.revision,
        prefix,
        endpoints: endpoints.collect(),
        rejected: rejected.collect(),
    };
    output.print(&detail, detail_table)
}

/// The keys of one service.
pub(super) fn scope_of(place: &Place, service: &ServiceName) -> Result<Scope, Failure> {
    Scope::of(place.layout.clone(), service.clone()).ok_or_else(|| {
        let format = &place.source.format;
        Failure::Usage(format!("format {format} cannot spell a service named {service}"))
    })
}

fn lease(raw: i64, lives: &HashMap<LeaseId, LeaseLife>) -> Option<Lease> {
    let id = LeaseId::of(raw)?;
    let life = lives.get(&id);
    Some(Lease {
        id: id.to_string(),
        granted: life.map(|life| life.granted.as_secs()),
        left: life.map(|life| life.left.as_secs()),
        copy: is_mirrored(raw),
    })
}

/// Says that a service has no key, and which one may have been meant.
pub(super) async fn absent(
    place: &Place,
    service: &ServiceName,
    prefix: &str,
    revision: i64,
) -> Failure {
    let mut text = format!("service {service} has no key below {prefix:?} at revision {revision}");
    if let Ok((book, ..)) = read(place, Scope::whole(place.layout.clone())).await {
        let names: BTreeSet<&str> = book.entries().map(|entry| entry.service.as_str()).collect();
        text.push_str(&match nearest(service.as_str(), names.iter().copied()) {
            Some(near) => format!("; did you mean {near}?"),
            None => {
                format!(
                    "; there are {}, see `pillion registry ls`",
                    counted(names.len(), "service")
                )
            }
        });
    }
    Failure::failed(std::io::Error::other(text))
}

fn detail_table(service: &Detail) -> String {
    let heads = [
        "ADDRESS", "ID", "STATE", "WEIGHT", "VERSION", "ZONE", "TLS", "FORMAT", "TTL", "KEY",
        "METADATA",
    ];
    let mut text = match service.endpoints.is_empty() {
        true => format!("{}: no endpoint at revision {}\n", service.name, service.revision),
        false => columns(heads, &service.endpoints.iter().map(row).collect::<Vec<_>>()),
    };
    if !service.rejected.is_empty() {
        let row = |r: &Rejected| [r.key.clone(), r.reason.clone()];
        text.push('\n');
        text.push_str(&columns(
            ["REJECTED", "REASON"],
            &service.rejected.iter().map(row).collect::<Vec<_>>(),
        ));
    }
    text
}

fn row(endpoint: &Endpoint) -> [String; 11] {
    let Endpoint { record, key, lease, .. } = endpoint;
    [
        record.address.clone(),
        record.own_id().to_owned(),
        record.state.to_owned(),
        record.weight.to_string(),
        record.version.clone(),
        record.zone.clone(),
        if record.tls { "yes".to_owned() } else { String::new() },
        record.format.to_owned(),
        time_to_live(lease.as_ref()),
        key.clone(),
        record.metadata_text(),
    ]
}

fn time_to_live(lease: Option<&Lease>) -> String {
    let Some(lease) = lease else { return "none".to_owned() };
    let mut text = match (lease.left, lease.granted) {
        (Some(left), Some(granted)) => format!("{left}s/{granted}s"),
        _ => "ended".to_owned(),
    };
    if lease.copy {
        text.push_str(" copy");
    }
    text
}
