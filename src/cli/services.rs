//! `pillion services`: the services of a running proxy, or the endpoints of one.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::{admin_client::AdminFlags, columns::columns, failure::Failure};
use crate::model::ServiceName;

/// Show the services that a running proxy knows, or the endpoints of one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Services {
    /// Show the endpoints of this service
    name: Option<ServiceName>,

    #[command(flatten)]
    admin: AdminFlags,
}

const EXAMPLES: &str = "\
Examples:
  pillion services
  pillion services orders
  pillion services orders -o json | jq '.endpoints[].address'
  pillion services --admin unix:/run/pillion-admin.sock

Endpoints in state ready take calls; forbidden ones (metadata state=forbidden) only calls that are
pinned to them, drained ones (weight 0) also when nothing else is left.";

/// `GET /services`.
#[derive(Debug, Deserialize)]
struct List {
    services: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    endpoints: u64,
    ready: u64,
    sources: Vec<String>,
}

/// `GET /services/NAME`.
#[derive(Debug, Deserialize)]
struct Detail {
    name: String,
    revision: i64,
    endpoints: Vec<Endpoint>,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    address: String,
    id: String,
    weight: u64,
    version: String,
    zone: String,
    metadata: BTreeMap<String, String>,
    source: String,
    format: String,
    state: String,
    in_flight: u64,
    picks: u64,
}

/// A record that cannot be used.
#[derive(Debug, Deserialize)]
pub(super) struct Rejected {
    key: String,
    reason: String,
}

impl Services {
    pub(super) fn run(self) -> Result<(), Failure> {
        match &self.name {
            // A service name holds nothing that would need an escape in a path.
            Some(name) => self.admin.ask(&format!("/services/{name}"), detail),
            None => self.admin.ask("/services", list),
        }
    }
}

fn list(list: &List) -> String {
    if list.services.is_empty() {
        return "No service is known yet. A lazy source learns of a service at its first call.\n"
            .to_owned();
    }
    let row = |s: &Listed| {
        [s.name.clone(), s.endpoints.to_string(), s.ready.to_string(), s.sources.join(",")]
    };
    let rows: Vec<_> = list.services.iter().map(row).collect();
    columns(["NAME", "ENDPOINTS", "READY", "SOURCES"], &rows)
}

fn detail(service: &Detail) -> String {
    let Detail { name, revision, endpoints, rejected } = service;
    let mut text = match endpoints.len() {
        0 => format!("{name}: no endpoints at revision {revision}\n"),
        _ => columns(
            [
                "ADDRESS",
                "ID",
                "STATE",
                "WEIGHT",
                "VERSION",
                "ZONE",
                "IN-FLIGHT",
                "PICKS",
                "SOURCE",
                "FORMAT",
                "METADATA",
            ],
            &endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        ),
    };
    text.push_str(&rejected_table(rejected));
    text
}

/// The records that cannot be used, below an empty line; nothing where there are none.
pub(super) fn rejected_table(rejected: &[Rejected]) -> String {
    if rejected.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = rejected.iter().map(|r| [r.key.clone(), r.reason.clone()]).collect();
    format!("\n{}", columns(["REJECTED", "REASON"], &rows))
}

fn endpoint(endpoint: &Endpoint) -> [String; 11] {
    let metadata = endpoint.metadata.iter().map(|(key, value)| format!("{key}={value}"));
    // The address is the id of one that has none; twice the same says nothing.
    let id = if endpoint.id == endpoint.address { "" } else { &endpoint.id };
    [
        endpoint.address.clone(),
        id.to_owned(),
        endpoint.state.clone(),
        endpoint.weight.to_string(),
        endpoint.version.clone(),
        endpoint.zone.clone(),
        endpoint.in_flight.to_string(),
        endpoint.picks.to_string(),
        endpoint.source.clone(),
        endpoint.format.clone(),
        metadata.collect::<Vec<_>>().join(","),
    ]
}
