//! `pillion policy ls` and `get`: what is in etcd.

use clap::Args;
use serde::Serialize;

use super::{Named, Place, failed};
use crate::cli::{
    columns::columns,
    failure::{Failure, print},
    output::Output,
};
use crate::registry::etcd::{Kv, ListLimits};

/// Every document, what it says, and what is wrong with it
///
/// Whether a proxy has it in force is told by that proxy: `live_policy` in its /config.
#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(super) struct Ls {
    /// How to print what is found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const LS_EXAMPLES: &str = "\
Examples:
  pillion policy ls
  pillion policy ls -o json | jq -r '.documents[] | select(.problem) | .key'";

/// One document as it was written
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(super) struct Get {
    /// service/NAME or route/ID, or whatever `pillion policy ls` shows
    key: Named,
}

const GET_EXAMPLES: &str = "\
Examples:
  pillion policy get service/orders
  pillion policy get route/10-canary > canary.toml";

/// Keys read at most.
const LIMITS: ListLimits =
    ListLimits { keys: 100_000, pause: std::time::Duration::from_millis(100) };

#[derive(Serialize)]
struct List {
    documents: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    key: String,
    /// Revision of its last change.
    revision: i64,
    value: String,
    /// Why no proxy takes it.
    problem: Option<String>,
    #[serde(skip)]
    says: String,
}

impl Ls {
    pub(super) async fn run(self, place: &Place) -> Result<(), Failure> {
        let member = place.connect().await?;
        let mut keys = Vec::new();
        let prefix = format!("{}/", place.prefix);
        let list = member.list(prefix.as_bytes(), LIMITS, |page| match page {
            Some(page) => keys.extend(page),
            None => keys.clear(),
        });
        list.await.map_err(Failure::failed)?;
        let documents = keys.iter().map(|kv| listed(&prefix, kv)).collect();
        self.output.print(&List { documents }, |list| table(place, list))
    }
}

fn listed(prefix: &str, kv: &Kv) -> Listed {
    let key = String::from_utf8_lossy(kv.key.strip_prefix(prefix.as_bytes()).unwrap_or(&kv.key));
    let document = key.parse::<Named>().and_then(|key| key.read(kv));
    let says = document.as_ref().map(|document| {
        let lines = document.lines().into_iter().map(|(key, value)| format!("{key}={value}"));
        lines.collect::<Vec<_>>().join(" ")
    });
    Listed {
        key: key.into_owned(),
        revision: kv.modified,
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        says: says.unwrap_or_default(),
        problem: document.err(),
    }
}

fn table(place: &Place, list: &List) -> String {
    if list.documents.is_empty() {
        return format!("there is no policy below {}\n", place.prefix);
    }
    let row = |document: &Listed| {
        [
            document.key.clone(),
            document.revision.to_string(),
            document.says.clone(),
            document.problem.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = list.documents.iter().map(row).collect();
    columns(["KEY", "REVISION", "SAYS", "REFUSED"], &rows)
}

impl Get {
    pub(super) async fn run(self, place: &Place) -> Result<(), Failure> {
        match place.get(&self.key).await?.0 {
            Some(kv) => print(kv.value),
            None => Err(failed(format!("there is no {}", place.key(&self.key)))),
        }
    }
}
