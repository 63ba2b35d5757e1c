//! `pillion why`: where a running proxy would send a call, and why.

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{admin_client::AdminFlags, columns::columns, failure::Failure};

/// Show where a call to AUTHORITY would go, and why
///
/// Asks the running proxy, which decides as it would for a call, without making one. Of the headers
/// of a call, these have a part in it: pillion-service, pillion-node, pillion-filter.
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
  pillion why orders -H 'pillion-filter: version=v2;version=v1;'
  pillion why orders@orders-7 -o json";

/// Headers with a part in the decision, and their names in the question.
const PARAMETERS: [(&str, &str); 3] =
    [("pillion-service", "service"), ("pillion-node", "node"), ("pillion-filter", "filter")];

/// What need not be escaped in the value of a query parameter (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A header that has a part in the decision, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header(Option<(&'static str, String)>);

/// Other headers pass, so that a call can be pasted as it is; but a pillion-* header that no proxy
/// knows is a slip.
fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text
        .split_once(':')
        .filter(|(name, _)| !name.trim().is_empty())
        .ok_or_else(|| format!("{text:?} is not a header; write 'name: value'"))?;
    let name = name.trim().to_ascii_lowercase();
    match PARAMETERS.iter().find(|(header, _)| *header == name) {
        Some((_, parameter)) => Ok(Header(Some((*parameter, value.trim().to_owned())))),
        None if name.starts_with("pillion-") => {
            let known = PARAMETERS.map(|(header, _)| header).join(", ");
            Err(format!("{name} has no part in the decision; there are {known}"))
        }
        None => Ok(Header(None)),
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
}

/// The route that decided.
#[derive(Debug, Deserialize)]
struct Route {
    authority: String,
    path_prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Step {
    stage: String,
    kept: u64,
    dropped: Vec<Dropped>,
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
}

impl Why {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.admin.ask(&self.question(), table)
    }

    fn question(&self) -> String {
        let headers = self.headers.iter().filter_map(|header| header.0.as_ref());
        let headers = headers.map(|(parameter, value)| (*parameter, &**value));
        let path = self.path.iter().map(|path| ("path", &**path));
        let parameters = path.chain(headers);
        let mut question = format!("/why?authority={}", escape(&self.authority));
        for (parameter, value) in parameters {
            question.push_str(&format!("&{parameter}={}", escape(value)));
        }
        question
    }
}

fn escape(value: &str) -> impl std::fmt::Display {
    utf8_percent_encode(value, ESCAPED)
}

fn table(answer: &Answer) -> String {
    let Answer { authority, service, verdict, message, route, balance, steps, candidates } = answer;
    let route = route.as_ref().map(|route| {
        let Route { authority, path_prefix } = route;
        format!("{authority} {}", path_prefix.as_deref().unwrap_or_default())
    });
    let verdict = if message.is_empty() { verdict } else { &format!("{verdict}: {message}") };
    let mut text = String::new();
    for (name, value) in [
        ("authority", authority),
        ("route", &route.unwrap_or_default()),
        ("service", service),
        ("balance", balance),
        ("verdict", verdict),
    ] {
        if !value.is_empty() {
            text.push_str(format!("{name:<9}  {value}").trim_end());
            text.push('\n');
        }
    }
    if !steps.is_empty() {
        let rows: Vec<_> = steps.iter().flat_map(rows).collect();
        text.push('\n');
        text.push_str(&columns(["STAGE", "KEPT", "DROPPED", "REASON"], &rows));
    }
    if !candidates.is_empty() {
        let share = |share: f64| format!("{:.1}%", share * 100.0);
        let row = |c: &Candidate| [c.address.clone(), c.weight.to_string(), share(c.share)];
        let rows: Vec<_> = candidates.iter().map(row).collect();
        text.push('\n');
        text.push_str(&columns(["CANDIDATE", "WEIGHT", "SHARE"], &rows));
    }
    text
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
