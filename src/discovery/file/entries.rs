//! The entries of a file: TOML to records, each with the line it is written on.
//!
//! ```toml
//! [[endpoint]]
//! service  = "orders"            # required, as is address
//! address  = "10.0.0.5:9000"
//! weight   = 100                 # 0 to 1000000
//! id       = "orders-1"          # default: the address
//! version  = "v2"
//! zone     = "a"
//! tls      = false               # whether it speaks TLS
//! metadata = { gpu = true }      # strings, numbers and booleans
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use crate::discovery::table::{Item, Listing};
use crate::formats::{Reading, RejectReason};
use crate::model::{Record, ServiceName};

const FORMAT: &str = "file";
const MAX_WEIGHT: u32 = 1_000_000;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By service; wrong entries are among them, each with its reason.
    pub(super) services: HashMap<ServiceName, Listing>,
    /// `LINE: what is wrong` of entries that do not even name a service.
    pub(super) strays: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "service")]
    _service: String,
    address: String,
    #[serde(default = "default_weight")]
    weight: u32,
    #[serde(default)]
    id: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    metadata: BTreeMap<String, Scalar>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "metadata must be strings, numbers and booleans")]
enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
}

const fn default_weight() -> u32 {
    Record::DEFAULT_WEIGHT
}

/// Reads a whole file.
///
/// # Errors
/// `LINE: what is wrong` when the text is not TOML, or holds something else than entries.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Entries, String> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let lines = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n');
        format!("{}: not UTF-8 text", lines.count() + 1)
    })?;
    let lines = Lines::of(text);
    let at = |error: &toml::de::Error, start| lines.line(error.span().map_or(start, |s| s.start));
    let file =
        DeTable::parse(text).map_err(|error| format!("{}: {}", at(&error, 0), error.message()))?;
    let mut found = Entries::default();
    for (name, value) in file.into_inner() {
        let (true, DeValue::Array(entries)) = (name.get_ref() == "endpoint", value.into_inner())
        else {
            let line = lines.line(name.span().start);
            return Err(format!(
                "{line}: `{}` is unknown, allowed is [[endpoint]]",
                name.get_ref()
            ));
        };
        let mut before = 0;
        for (index, entry) in entries.into_iter().enumerate() {
            let start = entry.span().start;
            let place = lines.line(start);
            let service = match service_of(&entry) {
                Ok(service) => service,
                Err(problem) => {
                    found.strays.push(format!("{place}: {problem}"));
                    continue;
                }
            };
            let entry = Entry::deserialize(ValueDeserializer::from(entry));
            let value = entry
                .map_err(|error| {
                    let message = error.message();
                    RejectReason::Entry(format!("line {}: {message}", at(&error, start)))
                })
                .and_then(record)
                .map(Reading::from);
            // Of two entries with one address the first counts.
            let modified = -i64::try_from(index).unwrap_or(i64::MAX);
            let mut key = format!("{}:{place}", path.display());
            if std::mem::replace(&mut before, place) == place {
                // Several on one line need keys of their own.
                key.push_str(&format!(":{}", lines.column(start)));
            }
            let key = key.into();
            let listing = found.services.entry(service).or_default();
            // Keys are places: a wrong entry says nothing of what was there before.
            listing.fresh = true;
            listing.items.push(Item { key, created: 0, modified, value });
        }
    }
    Ok(found)
}

fn service_of(entry: &Spanned<DeValue<'_>>) -> Result<ServiceName, String> {
    let service = entry.get_ref().get("service").map(Spanned::get_ref);
    let service = service.and_then(DeValue::as_str).ok_or("the entry has no text `service`")?;
    service.parse().map_err(|error| format!("service {service:?}: {error}"))
}

fn record(entry: Entry) -> Result<Record, RejectReason> {
    if entry.weight > MAX_WEIGHT {
        let reason = format!("weight {} is above {MAX_WEIGHT}", entry.weight);
        return Err(RejectReason::Entry(reason));
    }
    let mut record = Record::new(entry.address.parse()?, FORMAT);
    if !entry.id.is_empty() {
        record.id = entry.id;
    }
    let metadata = entry.metadata.into_iter().map(|(key, value)| {
        let value = match value {
            Scalar::Text(text) => text,
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Flag(flag) => flag.to_string(),
        };
        (key, value)
    });
    let metadata = metadata.collect();
    let (weight, version, zone, tls) = (entry.weight, entry.version, entry.zone, entry.tls);
    Ok(Record { weight, version, zone, metadata, tls, ..record })
}

/// Where the lines of a text begin. Files may have tens of thousands of entries, whose lines are not
/// to be counted from the top each.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after).collect())
    }

    /// Line of a byte, counted from 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|begin| *begin <= at)
    }

    /// Byte of its line, counted from 1.
    fn column(&self, at: usize) -> usize {
        at - self.0[self.line(at) - 1] + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Entries {
        parse(Path::new("s.toml"), text.as_bytes()).unwrap()
    }

    #[test]
    fn an_entry_becomes_a_record() {
        let entries = read(
            r#"
            [[endpoint]]
            service = "orders"
            address = "10.0.0.5:9000"
            weight = 7
            id = "orders-1"
            version = "v2"
            zone = "a"
            tls = true
            metadata = { gpu = true, shard = 3, share = 0.5, state = "forbidden" }
            [[endpoint]]
            service = "orders"
            address = "localhost:1"
            "#,
        );
        let items = &entries.services["orders"].items;
        let record = &items[0].value.as_ref().unwrap().records[0];
        assert_eq!(&*items[0].key, "s.toml:2");
        assert_eq!((record.weight, &*record.id, &*record.version), (7, "orders-1", "v2"));
        assert!(record.tls);
        let metadata: Vec<_> = record.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(metadata, ["gpu=true", "shard=3", "share=0.5", "state=forbidden"]);
        let plain = &items[1].value.as_ref().unwrap().records[0];
        assert_eq!((plain.weight, &*plain.id, plain.format), (100, "localhost:1", "file"));
    }

    #[test]
    fn entries_on_one_line_are_entries_of_their_own() {
        let entries = read(
            "endpoint = [\n  {service=\"a\",address=\"a:1\"}, {service=\"a\",address=\"b:2\"}\n]\n",
        );
        let keys: Vec<_> = entries.services["a"].items.iter().map(|item| &*item.key).collect();
        assert_eq!(keys, ["s.toml:2", "s.toml:2:32"]);
    }

    #[test]
    fn a_wrong_entry_is_refused_with_its_line_and_the_others_count() {
        for (field, problem) in [
            ("adress = \"x\"", "line 4: unknown field `adress`"),
            ("weight = -1", "line 4: invalid value"),
            ("weight = 1000001", "above 1000000"),
            ("metadata = { a = [1] }", "line 4: metadata must be strings"),
            ("address = \"10.0.0.1\"", "has no port"),
            ("", "missing field `address`"),
        ] {
            let address = if field.contains("address") || field.is_empty() {
                ""
            } else {
                "address = \"a:1\""
            };
            let text = format!(
                "[[endpoint]]\nservice = \"a\"\n{address}\n{field}\n[[endpoint]]\nservice = \"a\"\naddress = \"b:2\"\n"
            );
            let entries = read(&text);
            let items = &entries.services["a"].items;
            let reason = items[0].value.as_ref().unwrap_err().to_string();
            assert!(reason.contains(problem), "{field}: {reason}");
            assert!(items[1].value.is_ok());
        }
    }

    #[test]
    fn an_entry_without_a_service_is_told_apart() {
        let entries = read("[[endpoint]]\naddress = \"a:1\"\n[[endpoint]]\nservice = \"a b\"\n");
        assert!(entries.services.is_empty());
        assert_eq!(entries.strays[0], "1: the entry has no text `service`");
        assert!(entries.strays[1].starts_with("3: service \"a b\": "));
    }

    #[test]
    fn a_file_that_is_not_made_of_entries_is_refused_as_a_whole() {
        for (text, problem) in [
            ("[[endpoint]]\nservice = \n", "2: "),
            ("\n[[endpoints]]\nservice = \"a\"\n", "2: `endpoints` is unknown"),
            ("endpoint = 3\n", "1: `endpoint` is unknown"),
            ("service = \"a\"\n", "1: `service` is unknown"),
        ] {
            let error = parse(Path::new("s.toml"), text.as_bytes()).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
        assert_eq!(parse(Path::new("s.toml"), b"\n\xff").unwrap_err(), "2: not UTF-8 text");
        assert!(read("").services.is_empty());
    }
}
