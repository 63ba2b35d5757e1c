//! `pillion registry rm`: takes records out of etcd, and says what it takes.

use std::{io, sync::Arc};

use clap::Args;

use super::{
    Place,
    ls::{absent, scope_of},
    read,
};
use crate::cli::{
    columns::columns,
    failure::{Failure, note, print},
};
use crate::formats::habits;
use crate::model::ServiceName;
use crate::registry::{
    book::{Entry, Scope},
    etcd::{Expect, LeaseId, Member},
};
use crate::telemetry::plain;

/// Delete records from etcd
///
/// Shows what it deletes, and deletes only what it has shown: a key that somebody writes meanwhile
/// stays. More than one key needs --all. To take an endpoint out of service, stop it or write
/// weight 0 instead, where the format has weights: an owner that lives may put its key back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rm {
    /// Service whose records are meant
    #[arg(required_unless_present = "key")]
    service: Option<ServiceName>,

    /// Address or id of the endpoint; without it, every record of the service
    #[arg(value_name = "ADDRESS|ID")]
    which: Option<String>,

    /// The record at this key, whatever is in it
    #[arg(long, conflicts_with_all = ["service", "which"])]
    key: Option<String>,

    /// Delete several
    #[arg(long)]
    all: bool,

    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry rm orders 10.0.0.5:9000
  pillion registry rm orders orders-7 --dry-run
  pillion registry rm --key /microservices/orders/7587870229348472322
  pillion registry rm orders --all";

impl Rm {
    pub(super) async fn run(self, place: Place) -> Result<(), Failure> {
        let (entries, member) = self.find(&place).await?;
        print(table(&entries))?;
        let (keys, endpoints) = (entries.len(), self.others(&entries));
        if !self.all && (keys > 1 || endpoints > 0) {
            let more = match keys {
                1 => format!("the key holds {endpoints} more"),
                _ => format!("these are {keys} keys"),
            };
            return Err(Failure::Usage(format!("nothing is deleted: {more}, give --all too")));
        }
        if self.dry_run {
            return print("nothing is deleted: --dry-run\n");
        }
        let mut deleted = 0;
        for entry in &entries {
            let expected = Expect::Modified(entry.kv.modified);
            let done = member.delete_if(&entry.kv.key, expected).await.map_err(Failure::failed)?;
            deleted += usize::from(done.is_some());
            if done.is_none() {
                note(&format!("{} has changed meanwhile and stays", plain(&entry.key)));
            }
        }
        print(format!("deleted {deleted}\n{}", warnings(&entries)))?;
        match deleted == keys {
            true => Ok(()),
            false => Err(failed(format!("{} of {keys} keys were not deleted", keys - deleted))),
        }
    }

    async fn find(&self, place: &Place) -> Result<(Vec<Arc<Entry>>, Member), Failure> {
        if let Some(key) = &self.key {
            return self.find_key(place, key).await;
        }
        let Some(service) = &self.service else {
            return Err(Failure::Usage("give a service, or --key".to_owned()));
        };
        let scope = scope_of(place, service)?;
        let prefix = scope.prefix().to_owned();
        let (book, member, position) = read(place, scope).await?;
        if book.entries().next().is_none() {
            return Err(absent(place, service, &prefix, position.revision).await);
        }
        let found: Vec<_> = book.entries().filter(|entry| self.means(entry)).cloned().collect();
        match (&self.which, found.is_empty()) {
            (Some(which), true) => Err(failed(format!(
                "service {service} has no endpoint with the address or id {which:?}; see \
                 `pillion registry ls {service}`"
            ))),
            _ => Ok((found, member)),
        }
    }

    async fn find_key(
        &self,
        place: &Place,
        key: &str,
    ) -> Result<(Vec<Arc<Entry>>, Member), Failure> {
        let (member, _) = place.connect().await?;
        let there = member.get(key.as_bytes()).await.map_err(Failure::failed)?.0;
        let there = there.ok_or_else(|| failed(format!("there is no key {key}")))?;
        match Scope::whole(place.layout.clone()).entry(there) {
            Some(entry) => Ok((vec![Arc::new(entry)], member)),
            None => Err(Failure::Usage(format!(
                "{key} belongs to no service below the prefix {:?}: this command leaves it alone",
                place.layout.root()
            ))),
        }
    }

    fn means(&self, entry: &Entry) -> bool {
        let Some(which) = &self.which else { return true };
        entry.records().iter().any(|r| r.address.as_str() == which || r.id == *which)
    }

    /// How many endpoints would go that were not asked for: some formats hold several in a key.
    fn others(&self, entries: &[Arc<Entry>]) -> usize {
        let Some(which) = &self.which else { return 0 };
        let records = entries.iter().flat_map(|entry| entry.records());
        records.filter(|r| r.address.as_str() != which && r.id != *which).count()
    }
}

fn failed(text: String) -> Failure {
    Failure::failed(io::Error::other(text))
}

fn table(entries: &[Arc<Entry>]) -> String {
    let mut rows = Vec::new();
    for entry in entries {
        let lease =
            LeaseId::of(entry.kv.lease).map_or_else(|| "none".to_owned(), |id| id.to_string());
        let key = entry.key.to_string();
        for record in entry.records() {
            let (address, format) = (record.address.to_string(), record.format.to_owned());
            rows.push([key.clone(), address, record.id.clone(), format, lease.clone()]);
        }
        if entry.records().is_empty() {
            let why = entry.rejected().map(|reason| format!("unreadable: {reason}"));
            let why = why.unwrap_or_else(|| "no endpoint".to_owned());
            rows.push([key, why, String::new(), String::new(), lease]);
        }
    }
    columns(["KEY", "ADDRESS", "ID", "FORMAT", "LEASE"], &rows)
}

/// Says of which keys an owner that lives will put them back.
fn warnings(entries: &[Arc<Entry>]) -> String {
    let mut text = String::new();
    for entry in entries.iter().filter(|entry| entry.kv.lease != 0) {
        let Some(format) = entry.records().first().map(|record| record.format) else { continue };
        if let Some(when) = habits(format).puts_back {
            text.push_str(&format!(
                "{}: a {format} process that lives puts its key back {when}; stop the process\n",
                entry.key
            ));
        }
    }
    text
}
