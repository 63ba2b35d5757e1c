//! The file that keeps the last sets of one source: what it looks like, and how it is read and
//! written without ever being half of one.
//!
//! ```text
//! {"pillion_state":1,"check":"85944171f73967e8"}
//! {"source":{...},"proved":1763734000,"services":[{"name":"orders","revision":7,"endpoints":[...]}]}
//! ```
//!
//! What it says becomes addresses that calls go to, so it is believed only if nobody else can have
//! written it, if it is whole, and if it is of the same registry.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::config::EtcdSource;
use crate::discovery::table::{Item, Listing};
use crate::formats::FORMATS;
use crate::model::{Record, ServiceName};

/// Version of the form.
const VERSION: u32 = 1;
/// Larger files are neither read nor written.
const MAX_FILE: u64 = 256 * 1024 * 1024;

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
struct Head {
    pillion_state: u32,
    check: String,
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
    let text = match read_own(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (head, body) = text.split_once('\n').ok_or("it is cut off")?;
    let Head { pillion_state, check } =
        serde_json::from_str(head).map_err(|_| "it is no state file of pillion")?;
    if pillion_state != VERSION {
        return Err(format!("its version is {pillion_state}, not {VERSION}"));
    }
    if check != checksum(body.as_bytes()) {
        return Err("it is damaged".to_owned());
    }
    let body: Body = serde_json::from_str(body).map_err(|error| error.to_string())?;
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
    let body = serde_json::to_string(&body)?;
    if body.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    let head = Head { pillion_state: VERSION, check: checksum(body.as_bytes()) };
    let head = serde_json::to_string(&head)?;

    DirBuilder::new().recursive(true).mode(0o700).create(folder(path))?;
    let new = path.with_extension("new");
    let written = replace(path, &new, &[head.as_bytes(), b"\n", body.as_bytes()]);
    if written.is_err() {
        // It may be what fills the disk.
        let _ = fs::remove_file(&new);
    }
    written
}

fn replace(path: &Path, new: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // One that was left behind may be somebody else's, or have other rights.
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(new, path)?;
    // The name is on disk when the folder is.
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The text of a file that nobody else can have written.
fn read_own(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let (mine, roots) = (geteuid().as_raw(), 0);
    if ![mine, roots].contains(&about.uid()) || about.mode() & 0o022 != 0 {
        return Err(io::Error::other(
            "others may have written it: owner and mode must be ours, 0600",
        ));
    }
    if about.len() > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
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

/// FNV-1a, 64 bits: tells a file that a disk has damaged.
fn checksum(bytes: &[u8]) -> String {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn what_is_written_is_read_and_nobody_else_can_read_it() {
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
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_foreign_or_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.json");
        write(&path, origin(), Duration::ZERO, sets()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (text, problem) in [
            (good.replacen("10.0.0.1:3", "10.0.0.1:4", 1), "damaged"),
            (good[..good.len() / 2].to_owned(), "damaged"),
            (good[..10].to_owned(), "cut off"),
            (String::new(), "cut off"),
            (good.replacen(":1,", ":2,", 1), "version is 2"),
            (format!("[]\n{good}"), "no state file"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read(&path, &origin()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        fs::write(&path, good).unwrap();
        let other = EtcdSource { prefix: "other".to_owned(), ..EtcdSource::default() };
        assert!(read(&path, &Origin::of(&other)).unwrap_err().contains("another prefix"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(read(&path, &origin()).unwrap_err().contains("others may have written it"));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.json");
        write(&path, origin(), Duration::ZERO, sets()).unwrap();
        let good = fs::read(&path).unwrap();
        // In the way of the new file.
        fs::create_dir(path.with_extension("new")).unwrap();
        write(&path, origin(), Duration::ZERO, Vec::new()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}
