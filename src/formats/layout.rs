//! A format under a root: the rules that all formats share.

use std::{borrow::Cow, sync::Arc};

use smallvec::SmallVec;

use crate::model::{Record, ServiceName};

use super::{ALL, EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written};

/// Longest value that is read, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// Longest key that is read, in bytes, unless a format keeps more than names in its keys.
pub const MAX_KEY: usize = 1024;

/// Longest key of a format that keeps a URL in its keys, in bytes.
pub(super) const MAX_URL_KEY: usize = 8 * 1024;

/// A format under a root prefix: how one source spells its services. Cloning shares.
#[derive(Clone, Debug)]
pub struct Layout {
    format: &'static dyn Format,
    /// Ends in `/`, or is empty.
    root: Arc<str>,
}

/// What one key says of the services that it belongs to.
pub type Readings = SmallVec<[(ServiceName, Result<Reading, RejectReason>); 1]>;

impl Layout {
    /// The layout of format `name` under `prefix`, or where the framework itself writes when that is
    /// empty; none when no format has that name.
    pub fn new(name: &str, prefix: &str) -> Option<Self> {
        let format = *ALL.iter().find(|format| format.name() == name)?;
        let prefix = if prefix.is_empty() { format.default_root() } else { prefix };
        Some(Self { format, root: format.root(prefix).into() })
    }

    /// What all keys of this source start with; empty for the whole key space.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whether a source of this layout must read everything under the root, because keys alone do not
    /// say whose they are.
    pub fn is_whole(&self) -> bool {
        self.format.is_whole()
    }

    /// What all keys of `service` start with, though others may, too; none when the format cannot
    /// spell it.
    pub fn prefix(&self, service: &ServiceName) -> Option<String> {
        if self.is_whole() {
            return Some(self.root.to_string());
        }
        self.format.prefix(&self.root, service)
    }

    /// The services that a key belongs to, by the key alone; the nearest first.
    pub fn services_of(&self, key: &[u8]) -> SmallVec<[ServiceName; 1]> {
        let key = String::from_utf8_lossy(key);
        self.places(&key).into_iter().map(|place| place.service).collect()
    }

    /// Reads one key for the services that it belongs to, the nearest first; none for a key that is no
    /// instance, or of a service that no caller could name.
    pub fn read(&self, key: &[u8], value: &[u8]) -> Readings {
        let text = String::from_utf8_lossy(key);
        let mut places = self.places(&text);
        if self.is_whole()
            && let Ok(value) = self.text(key, value)
            && let [place] = &mut places[..]
            && let Some(service) = self.format.named_by(&text[self.root.len()..], value)
        {
            place.service = service;
        }
        let read = |place: Place<'_>| {
            let reading = self.reading(&place, key, value);
            (place.service, reading)
        };
        places.into_iter().map(read).collect()
    }

    /// Reads one key for `service`; none when it does not belong to that.
    pub fn read_for(
        &self,
        service: &ServiceName,
        key: &[u8],
        value: &[u8],
    ) -> Option<Result<Reading, RejectReason>> {
        if self.is_whole() {
            return self.read(key, value).into_iter().find(|(of, _)| of == service).map(|(_, r)| r);
        }
        let text = String::from_utf8_lossy(key);
        let place = self.places(&text).into_iter().find(|place| place.service == *service)?;
        Some(self.reading(&place, key, value))
    }

    /// What to put for `record`, an instance of `service` that lives under `lease`. The key depends on
    /// the service, [`Record::id`], [`Record::address`], [`Record::version`] or the lease, as the
    /// format has it; [`Record::format`] is not looked at.
    ///
    /// # Errors
    /// [`EncodeError`] when this format cannot be written, or cannot say this.
    pub fn encode(
        &self,
        service: &ServiceName,
        record: &Record,
        lease: i64,
    ) -> Result<Written, EncodeError> {
        let cannot = || EncodeError::Cannot {
            format: self.format.name(),
            what: format!("a service named {service}"),
        };
        let prefix = self.format.prefix(&self.root, service).ok_or_else(cannot)?;
        let written = self.format.encode(&prefix, service, record, lease)?;
        // A long id makes a long key, which nobody would read.
        self.text(written.key.as_bytes(), written.value.as_bytes()).map_err(|reason| {
            EncodeError::Cannot {
                format: self.format.name(),
                what: format!("what would not be read again: {reason}"),
            }
        })?;
        Ok(written)
    }

    fn places<'a>(&self, key: &'a str) -> Places<'a> {
        key.strip_prefix(&*self.root).map(|path| self.format.places(path)).unwrap_or_default()
    }

    fn reading(
        &self,
        place: &Place<'_>,
        key: &[u8],
        value: &[u8],
    ) -> Result<Reading, RejectReason> {
        let value = self.text(key, value)?;
        let path = std::str::from_utf8(key).map_err(|_| RejectReason::KeyNotText)?;
        let path = path.strip_prefix(&*self.root).unwrap_or_default();
        let (service, instance) = (&place.service, place.instance);
        match self.format.decode(&RecordKey { path, service, instance }, value) {
            Err(reason @ RejectReason::NotGrpc(_)) => {
                Ok(Reading { left_out: Some(reason), ..Reading::default() })
            }
            result => result,
        }
    }

    /// The value as text, once it is certain that key and value are of a size that is read.
    fn text<'a>(&self, key: &[u8], value: &'a [u8]) -> Result<&'a str, RejectReason> {
        let most = self.format.max_key();
        if key.len() > most {
            return Err(RejectReason::KeyTooLong(key.len(), most));
        }
        if value.len() > MAX_VALUE {
            return Err(RejectReason::ValueTooLarge(value.len()));
        }
        let value = std::str::from_utf8(value).map_err(|_| RejectReason::ValueNotText)?;
        Ok(value.trim_end())
    }
}

/// A key as reports show it: as it is where it is short text, else escaped and cut.
pub fn key_text(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) if key.len() <= MAX_URL_KEY => text.into(),
        _ => {
            let head = &key[..key.len().min(200)];
            format!("{} ({} bytes)", head.escape_ascii(), key.len()).into()
        }
    }
}
