//! The file that keeps the last sets of one source: what it looks like.
//!
//! ```text
//! {"source":{...},"proved":1763734000,"services":[{"name":"orders","revision":7,"endpoints":[...]}]}
//! ```
//!
//! It is believed only if it is of the same registry.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::config::EtcdSource;
use crate::discovery::table::{Item, Listing};
use crate::formats::FORMATS;
use crate::model::{Record, ServiceName};
use crate::state_file;

/// The sets of one source at one moment, as the board hands them out: cheap to make, since records are
/// shared.
pub(crate) type Sets = Vec<(ServiceName, i64, Vec<Kept>)>;

/// One endpoint of a set.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) key: Arc<str>,
    pub(crate) modified: i64,
    pub(crate) record: Arc<Record>,
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct Saved {
    /// How long ago the sets were last known to be current.
    pub(crate) age: Duration,
    pub(crate) services: Vec<(ServiceName, Listing)>,
}

/// Which registry sets are of. Those of another one are not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    endpoints: Vec<String>,
    prefix: String,
    format: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    source: Origin,
    /// Seconds since 1970.
    proved: u64,
    services: Vec<StoredService>,
}

#[derive(Serialize, Deserialize)]
struct StoredService {
    name: String,
    revision: i64,
    endpoints: Vec<StoredEndpoint>,
}

#[derive(Serialize, Deserialize)]
struct StoredEndpoint {
    key: String,
    modified: i64,
    address: String,
    id: String,
    weight: u32,
    version: String,
    zone: String,
    metadata: BTreeMap<String, String>,
    tls: bool,
    format: String,
}

impl Origin {
    pub(crate) fn of(source: &EtcdSource) -> Self {
        let mut endpoints = source.endpoints.clone();
        endpoints.sort();
        Self { endpoints, prefix: source.prefix.clone(), format: source.format.clone() }
    }
}

/// Reads a file; none where there is none.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn read(path: &Path, origin: &Origin) -> Result<Option<Saved>, String> {
    let Some(body) = state_file::read::<Body>(path)? else { return Ok(None) };
    if body.source != *origin {
        return Err("it is of other endpoints, another prefix or another format".to_owned());
    }
    let services = body.services.into_iter().map(service).collect::<Result<_, _>>()?;
    let age = now().saturating_sub(Duration::from_secs(body.proved));
    Ok(Some(Saved { age, services }))
}

/// Writes a file in the place of the one that is there: another process sees either.
///
/// # Errors
/// What failed; the old file is as it was.
pub(crate) fn write(path: &Path, origin: Origin, age: Duration, sets: Sets) -> io::Result<()> {
    let services = sets.into_iter().map(|(name, revision, kept)| StoredService {
        name: name.to_string(),
        revision,
        endpoints: kept.iter().map(stored).collect(),
    });
    let proved = now().saturating_sub(age).as_secs();
    let body = Body { source: origin, proved, services: services.collect() };
    state_file::write(path, &body)
}

fn stored(kept: &Kept) -> StoredEndpoint {
    let Record { address, id, weight, version, zone, metadata, tls, format } = &*kept.record;
    StoredEndpoint {
        key: kept.key.to_string(),
        modified: kept.modified,
        address: address.to_string(),
        id: id.clone(),
        weight: *weight,
        version: version.clone(),
        zone: zone.clone(),
        metadata: metadata.clone(),
        tls: *tls,
        format: (*format).to_owned(),
    }
}

fn service(stored: StoredService) -> Result<(ServiceName, Listing), String> {
    let name = stored.name.parse().map_err(|error| format!("{:?}: {error}", stored.name))?;
    let mut items: BTreeMap<String, (i64, Vec<Record>)> = BTreeMap::new();
    for endpoint in stored.endpoints {
        let StoredEndpoint { key, modified, .. } = &endpoint;
        let (_, records) = items.entry(key.clone()).or_insert((*modified, Vec::new()));
        records.push(record(endpoint)?);
    }
    let item = |(key, (modified, records)): (String, (i64, Vec<Record>))| Item {
        key: key.into(),
        created: modified,
        modified,
        value: Ok(records.into()),
    };
    let items = items.into_iter().map(item).collect();
    Ok((name, Listing { items, revision: stored.revision, ..Listing::default() }))
}

fn record(stored: StoredEndpoint) -> Result<Record, String> {
    let StoredEndpoint { address, id, weight, version, zone, metadata, tls, format, .. } = stored;
    let known = FORMATS.iter().find(|known| **known == format);
    let format = known.ok_or_else(|| format!("format {format:?} is unknown"))?;
    let address = address.parse().map_err(|error| format!("{error}"))?;
    Ok(Record { address, id, weight, version, zone, metadata, tls, format })
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> Sets {
        let record = |port: u16| {
            let address = format!("10.0.0.1:{port}").parse().unwrap();
            let metadata = [("gpu".to_owned(), "\u{e9}\"\n".to_owned())].into();
            let (version, weight) = ("v2".to_owned(), 7);
            Record { version, weight, metadata, ..Record::new(address, "koala") }
        };
        let kept =
            |key: &str, port| Kept { key: key.into(), modified: 9, record: Arc::new(record(port)) };
        let orders = vec![kept("orders/a", 1), kept("orders/a", 2), kept("orders/b", 3)];
        vec![("orders".parse().unwrap(), 12, orders), ("pay".parse().unwrap(), 3, Vec::new())]
    }

    fn origin() -> Origin {
        Origin::of(&EtcdSource::default())
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/main.json");
        assert!(read(&path, &origin()).unwrap().is_none());
        for _ in 0..2 {
            write(&path, origin(), Duration::from_secs(60), sets()).unwrap();
        }
        let saved = read(&path, &origin()).unwrap().unwrap();
        assert!((60..70).contains(&saved.age.as_secs()), "{:?}", saved.age);
        let [(orders, listing), (pay, empty)] = &saved.services[..] else { panic!("two services") };
        assert_eq!((orders.as_str(), pay.as_str(), empty.items.len()), ("orders", "pay", 0));
        assert_eq!((listing.revision, listing.items.len()), (12, 2));
        let a = listing.items[0].value.as_ref().unwrap();
        assert_eq!((a.records.len(), &a.records[1]), (2, &*sets()[0].2[1].record));
    }

    #[test]
    fn what_is_of_another_registry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.json");
        write(&path, origin(), Duration::ZERO, sets()).unwrap();
        let other = EtcdSource { prefix: "other".to_owned(), ..EtcdSource::default() };
        assert!(read(&path, &Origin::of(&other)).unwrap_err().contains("another prefix"));
    }
}
