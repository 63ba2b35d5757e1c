//! `pillion why`: where a running proxy would send a call, and why.

use std::{collections::BTreeMap, fmt};

use clap::Args;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::{
    admin_client::{AdminFlags, ESCAPED},
    columns::columns,
    failure::Failure,
    services::{Rejected, rejected_table},
};
use crate::telemetry::plain;

/// Show where a call to AUTHORITY would go, and why
///
/// Asks the running proxy, which decides as it would for a call, without making one. Headers that
/// speak to the proxy (pillion-service, pillion-node, pillion-filter, pillion-hash-key), and those
/// that its routes and `hash_on` look at, have a part in it; the others do no harm.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Why {
    /// What the call has in `:authority`, such as orders or orders.internal:8443
    authority: String,

    /// A header of the call; repeat for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<Header>,

    /// The path of the call, which routes may look at
    #[arg(long, value_name = "/PKG.SERVICE/METHOD")]
    path: Option<String>,

    #[command(flatten)]
    admin: AdminFlags,
}

const EXAMPLES: &str = "\
Examples:
  pillion why orders
  pillion why orders.internal:8443 --path /orders.v1.Orders/List
  pillion why orders -H 'x-user: test'
  pillion why orders -H 'pillion-filter: version=v2;version=v1;'
  pillion why orders -H 'pillion-hash-key: user-7'
  pillion why orders@orders-7 -o json";

/// Headers that speak to the proxy, and their names in the question.
const PARAMETERS: [(&str, &str); 4] = [
    ("pillion-service", "service"),
    ("pillion-node", "node"),
    ("pillion-filter", "filter"),
    ("pillion-hash-key", "hash_key"),
];

/// A header as a parameter of the question: its name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header(&'static str, String);

/// Routes may look at any header of a call; but a pillion-* header that no proxy knows is a slip.
fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text
        .split_once(':')
        .filter(|(name, _)| http::HeaderName::from_bytes(name.trim().as_bytes()).is_ok())
        .ok_or_else(|| format!("{text:?} is not a header; write 'name: value'"))?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    match PARAMETERS.iter().find(|(header, _)| *header == name) {
        Some((_, parameter)) => Ok(Header(parameter, value.to_owned())),
        None if name.starts_with("pillion-") => {
            let known = PARAMETERS.map(|(header, _)| header).join(", ");
            Err(format!("{name} has no part in the decision; there are {known}"))
        }
        None => Ok(Header("header", format!("{name}: {value}"))),
    }
}

/// `GET /why`.
#[derive(Debug, Deserialize)]
struct Answer {
    authority: String,
    /// Empty where the authority names none.
    service: String,
    /// `ok`, or the reason that such a call would fail for.
    verdict: String,
    /// What the verdict means, for a person.
    #[serde(default)]
    message: String,
    route: Option<Route>,
    #[serde(default)]
    balance: String,
    steps: Vec<Step>,
    candidates: Vec<Candidate>,
    /// Records of the service that cannot be used.
    #[serde(default)]
    rejected: Vec<Rejected>,
}

/// The route that decided.
#[derive(Debug, Deserialize)]
struct Route {
    #[serde(default)]
    name: String,
    authority: String,
    path_prefix: Option<String>,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Trouble that is made on purpose.
    fault: Option<String>,
    #[serde(default)]
    ways: Vec<Way>,
}

/// One way of a route that has several.
#[derive(Debug, Deserialize)]
struct Way {
    service: String,
    filter: String,
    weight: u64,
    /// Share of the calls, 0 to 1.
    share: f64,
    /// Whether this call goes it.
    taken: bool,
}

#[derive(Debug, Deserialize)]
struct Step {
    stage: String,
    kept: u64,
    dropped: Vec<Dropped>,
    /// The figures that decided.
    #[serde(default)]
    note: String,
}

#[derive(Debug, Deserialize)]
struct Dropped {
    address: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Candidate {
    address: String,
    weight: u64,
    /// Share of the calls, 0 to 1.
    share: f64,
    /// Where the balancer goes by it: mean time to an answer.
    latency_ms: Option<f64>,
    /// Likewise: calls in flight.
    in_flight: Option<u64>,
}

impl Why {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.admin.ask(&self.question(), table)
    }

    fn question(&self) -> String {
        let headers = self.headers.iter().map(|Header(parameter, value)| (*parameter, &**value));
        let path = self.path.iter().map(|path| ("path", &**path));
        let parameters = path.chain(headers);
        let mut question = format!("/why?authority={}", escape(&self.authority));
        for (parameter, value) in parameters {
            question.push_str(&format!("&{}={}", escape(parameter), escape(value)));
        }
        question
    }
}

fn escape(value: &str) -> impl std::fmt::Display {
    utf8_percent_encode(value, ESCAPED)
}

fn table(answer: &Answer) -> String {
    let Answer { authority, service, verdict, message, route, balance, .. } = answer;
    let Answer { steps, candidates, rejected, .. } = answer;
    let ways = route.as_ref().map_or(&[][..], |route| &route.ways);
    let verdict = if message.is_empty() { verdict } else { &format!("{verdict}: {message}") };
    let mut text = String::new();
    for (name, value) in [
        ("authority", authority),
        ("route", &route.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("fault", &route.as_ref().and_then(|route| route.fault.clone()).unwrap_or_default()),
        ("service", service),
        ("balance", balance),
        ("verdict", verdict),
    ] {
        if !value.is_empty() {
            text.push_str(format!("{name:<9}  {}", plain(value)).trim_end());
            text.push('\n');
        }
    }
    if ways.len() > 1 {
        text.push('\n');
        text.push_str(&columns(
            ["WAY", "FILTER", "WEIGHT", "SHARE", "TAKEN"],
            &ways.iter().map(way).collect::<Vec<_>>(),
        ));
    }
    if !steps.is_empty() {
        let rows: Vec<_> = steps.iter().flat_map(rows).collect();
        text.push('\n');
        text.push_str(&columns(["STAGE", "KEPT", "DROPPED", "REASON"], &rows));
        for Step { stage, note, .. } in steps.iter().filter(|step| !step.note.is_empty()) {
            text.push_str(&format!("{stage}: {note}\n"));
        }
    }
    if !candidates.is_empty() {
        let row = |c: &Candidate| {
            let latency = c.latency_ms.map(|latency| format!("{latency} ms")).unwrap_or_default();
            let in_flight = c.in_flight.map(|calls| calls.to_string()).unwrap_or_default();
            [c.address.clone(), c.weight.to_string(), share(c.share), latency, in_flight]
        };
        let rows: Vec<_> = candidates.iter().map(row).collect();
        text.push('\n');
        text.push_str(&columns(["CANDIDATE", "WEIGHT", "SHARE", "LATENCY", "IN-FLIGHT"], &rows));
    }
    text.push_str(&rejected_table(rejected));
    text
}

fn way(way: &Way) -> [String; 5] {
    let taken = if way.taken { "yes" } else { "" };
    [
        way.service.clone(),
        way.filter.clone(),
        way.weight.to_string(),
        share(way.share),
        taken.to_owned(),
    ]
}

fn share(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Which route, and all that it asks for.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, authority, path_prefix, method, headers, fault: _, ways: _ } = self;
        if !name.is_empty() {
            write!(f, "{name}: ")?;
        }
        write!(f, "{authority}")?;
        for path in [path_prefix, method].into_iter().flatten() {
            write!(f, " {path}")?;
        }
        headers.iter().try_for_each(|(name, value)| write!(f, " {name}={value:?}"))
    }
}

/// One line for a stage, and one more for each endpoint it dropped but the first.
fn rows(step: &Step) -> Vec<[String; 4]> {
    let mut rows = vec![[step.stage.clone(), step.kept.to_string(), String::new(), String::new()]];
    for (at, Dropped { address, reason }) in step.dropped.iter().enumerate() {
        if at > 0 {
            rows.push(Default::default());
        }
        let [_, _, address_cell, reason_cell] = &mut rows[at];
        address_cell.clone_from(address);
        reason_cell.clone_from(reason);
    }
    rows
}
