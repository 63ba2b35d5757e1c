//! `pillion registry watch`: what changes in etcd, as it changes.

use std::{collections::BTreeMap, fmt::Write, future::pending, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    Place, asked_to_end, duration,
    ls::scope_of,
    view::{RecordView, now},
};
use crate::cli::{
    failure::{Failure, note, print_on},
    output::{Output, counted, json},
};
use crate::model::{Address, Record, ServiceName};
use crate::registry::{
    book::{Book, Diff, Entry, Scope},
    etcd::{Follow, LeaseId, News},
};
use crate::telemetry::plain;

/// Print what changes in etcd, as it changes
///
/// Starts with what changes after it has started; `ls` shows what is there. While etcd is away it
/// tries on, and then prints what has changed meanwhile. Ends with Ctrl-C, or after --for.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Watch {
    /// Only this service
    service: Option<ServiceName>,

    /// End after this time, such as 30s or 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    limit: Option<Duration>,

    /// How to print a change; as JSON it is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry watch
  pillion registry watch orders --for 10m
  pillion registry watch -o json | jq -r 'select(.change == \"removed\") | .address'

+ an endpoint came, - it went, ~ its record changed, ! its record cannot be used (any more).";

/// What happened to one endpoint, or to one key that cannot be used.
#[derive(Clone, Debug, Serialize)]
struct Event {
    time: String,
    change: Change,
    service: String,
    /// None where the record cannot be used.
    address: Option<String>,
    key: String,
    what: String,
    /// As it is now; none for one that went.
    record: Option<RecordView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Added,
    Removed,
    Changed,
    Rejected,
}

impl Change {
    const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
            Self::Rejected => '!',
        }
    }
}

impl Watch {
    pub(super) async fn run(self, place: Place) -> Result<(), Failure> {
        let scope = match &self.service {
            Some(service) => scope_of(&place, service)?,
            None => Scope::whole(place.layout.clone()),
        };
        let mut ended = std::pin::pin!(asked_to_end()?);
        let mut limit = std::pin::pin!(async {
            match self.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => pending().await,
            }
        });
        let mut follow = Follow::new(place.source, scope.prefix().into());
        let mut seen = Seen { book: Book::new(scope), began: false, width: 0 };
        loop {
            tokio::select! {
                () = &mut ended => return Ok(()),
                () = &mut limit => return Ok(()),
                news = follow.next() => {
                    let events = seen.take(news);
                    if !events.is_empty() && !seen.print(&events, self.output)? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

struct Seen {
    book: Book,
    began: bool,
    /// Of the widest service name so far.
    width: usize,
}

impl Seen {
    /// What is news of the news. How etcd is doing goes to stderr.
    fn take(&mut self, news: News) -> Vec<Event> {
        let diffs = match news {
            News::Lost(error) => {
                note(&format!("{} etcd cannot be reached, trying on: {error}", now()));
                return Vec::new();
            }
            News::Listed(keys, position) => {
                let (count, revision) = (keys.len(), position.revision);
                let diffs = self.book.list(keys);
                if !std::mem::replace(&mut self.began, true) {
                    let prefix = self.book.scope().prefix();
                    let keys = counted(count, "key");
                    eprintln!("watching {prefix:?} from revision {revision}, {keys} there");
                    return Vec::new();
                }
                eprintln!("{} etcd was listed again at revision {revision}", now());
                diffs
            }
            News::Changed(changes) => self.book.apply(changes),
        };
        diffs.iter().flat_map(events).collect()
    }

    /// Prints, and says whether anybody reads on.
    fn print(&mut self, events: &[Event], output: Output) -> Result<bool, Failure> {
        let mut text = String::new();
        for event in events {
            match output {
                Output::Json => text.push_str(&json(event)?),
                Output::Table => text.push_str(&self.line(event)),
            }
            text.push('\n');
        }
        print_on(text)
    }

    fn line(&mut self, event: &Event) -> String {
        let Event { time, change, service, address, key, what, .. } = event;
        self.width = self.width.max(service.len());
        let address = address.as_deref().unwrap_or(key);
        let (sign, width) = (change.sign(), self.width);
        let line = format!("{time}  {sign} {service:<width$}  {address:<21}  {what}");
        plain(line.trim_end()).into_owned()
    }
}

fn events(diff: &Diff) -> Vec<Event> {
    let Some(entry) = diff.after.as_deref().or(diff.before.as_deref()) else { return Vec::new() };
    let event = |change, address: Option<&Address>, what, record: Option<&Record>| Event {
        time: now(),
        change,
        service: entry.service.to_string(),
        address: address.map(ToString::to_string),
        key: entry.key.to_string(),
        what,
        record: record.map(RecordView::from),
    };
    let (before, after) = (by_address(diff.before.as_deref()), by_address(diff.after.as_deref()));
    let mut events = Vec::new();
    for record in before.values().filter(|record| !after.contains_key(record.address.as_str())) {
        events.push(event(Change::Removed, Some(&record.address), String::new(), None));
    }
    for (address, record) in &after {
        let Some(old) = before.get(address) else {
            let what = described(record, lease(diff.after.as_deref()));
            events.push(event(Change::Added, Some(&record.address), what, Some(record)));
            continue;
        };
        let mut what = differences(old, record);
        what.extend(changed("lease", lease(diff.before.as_deref()), lease(diff.after.as_deref())));
        if !what.is_empty() {
            let what = what.join(", ");
            events.push(event(Change::Changed, Some(&record.address), what, Some(record)));
        }
    }
    let reason = |entry: Option<&Entry>| Some(entry?.rejected()?.to_string());
    match (reason(diff.before.as_deref()), reason(diff.after.as_deref())) {
        (_, Some(reason)) => events.push(event(Change::Rejected, None, reason, None)),
        (Some(_), None) if diff.after.is_none() => {
            events.push(event(Change::Removed, None, String::new(), None));
        }
        _ => {}
    }
    events
}

fn by_address(entry: Option<&Entry>) -> BTreeMap<&str, &Record> {
    let records = entry.map(Entry::records).unwrap_or_default();
    records.iter().map(|record| (record.address.as_str(), record)).collect()
}

fn lease(entry: Option<&Entry>) -> String {
    let lease = entry.and_then(|entry| LeaseId::of(entry.kv.lease));
    lease.map_or_else(|| "none".to_owned(), |lease| lease.to_string())
}

/// A new record in a few words.
fn described(record: &Record, lease: String) -> String {
    let view = RecordView::from(record);
    let metadata = view.metadata_text();
    let mut text = format!("{} weight {}", view.format, view.weight);
    for (name, value) in [
        ("id", view.own_id()),
        ("version", &view.version),
        ("zone", &view.zone),
        ("tls", if view.tls { "yes" } else { "" }),
        ("metadata", &metadata),
        ("lease", &lease),
    ] {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, " {name} {value}");
        }
    }
    text
}

fn differences(old: &Record, new: &Record) -> Vec<String> {
    let (a, b) = (RecordView::from(old), RecordView::from(new));
    let (tls_a, tls_b) = (a.tls.to_string(), b.tls.to_string());
    let (metadata_a, metadata_b) = (a.metadata_text(), b.metadata_text());
    let fields = [
        changed("format", a.format, b.format),
        changed("id", a.id, b.id),
        changed("weight", a.weight.to_string(), b.weight.to_string()),
        changed("version", a.version, b.version),
        changed("zone", a.zone, b.zone),
        changed("tls", tls_a, tls_b),
        changed("metadata", metadata_a, metadata_b),
    ];
    fields.into_iter().flatten().collect()
}

fn changed(name: &str, old: impl AsRef<str>, new: impl AsRef<str>) -> Option<String> {
    let shown = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
    let (old, new) = (old.as_ref(), new.as_ref());
    (old != new).then(|| format!("{name} {} -> {}", shown(old), shown(new)))
}
