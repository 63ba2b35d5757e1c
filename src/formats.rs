//! Record formats: which keys hold a service, and what a value says.
//!
//! Discovery calls [`Layout`], which owns the rules that all formats share: the bounds of keys and
//! values, and that a service never shows the keys of another. A [`Format`] knows one framework's
//! spelling and nothing else; each is one file below. Reading never fails as a whole: a value that
//! cannot be used is a [`RejectReason`] for that key alone.

mod auto;
mod etcd_naming;
mod go_zero;
mod json;
mod koala;
mod kratos;
mod labels;
mod weight;
mod write;

use std::{borrow::Cow, fmt, sync::Arc};

use crate::model::{AddressError, Record, ServiceName};

/// Names of the formats, as a source may name them.
pub const FORMATS: &[&str] = &["auto", "etcd-naming", "grpc-wrapper", "koala", "go-zero", "kratos"];

/// Longest value that is read, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// Longest key that is read, in bytes.
pub const MAX_KEY: usize = 1024;

/// One framework's way of writing a service into etcd.
pub trait Format: fmt::Debug + Send + Sync {
    /// Name in configuration, records and reports.
    fn name(&self) -> &'static str;

    /// Key prefix of all services under `root`, ending in `/`; empty for no root.
    fn root(&self, root: &str) -> String {
        if root.is_empty() || root.ends_with('/') { root.to_owned() } else { format!("{root}/") }
    }

    /// Key prefix of one service under `root`, ending in `/`; none for a service that this format
    /// cannot spell.
    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        Some(format!("{}{}/", self.root(root), service.key()))
    }

    /// What `value` says of the instances at `key`. No record is a valid answer.
    ///
    /// # Errors
    /// [`RejectReason`] when the value, or one of several instances in it, cannot be used.
    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Vec<Record>, RejectReason>;

    /// What the framework itself would write for `record`, byte for byte. `prefix` is that of the
    /// service, ending in `/`.
    ///
    /// # Errors
    /// [`EncodeError`] when the format is only read, or cannot say this.
    fn encode(
        &self,
        _prefix: &str,
        _service: &ServiceName,
        _record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        Err(EncodeError::ReadOnly(self.name()))
    }
}

/// A key and its value, ready to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Why a record cannot be written in a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format is read, never written.
    #[error("format {0} is only read")]
    ReadOnly(&'static str),
    /// The format has no way to say this, or its readers would break over it.
    #[error("format {format} cannot hold {what}")]
    Cannot {
        /// Name of the format.
        format: &'static str,
        /// What it cannot hold, such as `an IPv6 address`.
        what: String,
    },
}

/// A key as a format sees it.
#[derive(Clone, Copy, Debug)]
pub struct RecordKey<'a> {
    /// The whole key.
    pub full: &'a str,
    /// The service that the key belongs to.
    pub service: &'a ServiceName,
    /// Last segment of the key: the instance, in whatever way the framework names it.
    pub instance: &'a str,
}

/// Why a key gives no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// More than [`MAX_KEY`] bytes.
    #[error("the key has {0} bytes, at most {MAX_KEY} are read")]
    KeyTooLong(usize),
    /// The key is not UTF-8.
    #[error("the key is not UTF-8 text")]
    KeyNotText,
    /// More than [`MAX_VALUE`] bytes.
    #[error("the value has {0} bytes, at most {MAX_VALUE} are read")]
    ValueTooLarge(usize),
    /// The value is not UTF-8.
    #[error("the value is not UTF-8 text")]
    ValueNotText,
    /// Nothing is there, where the format needs something.
    #[error("the value is empty")]
    Empty,
    /// Not the JSON object that the format needs.
    #[error("the value is not a JSON object: {0}")]
    Json(String),
    /// A field that the format needs is absent or of another type.
    #[error("the value has no usable field `{0}`")]
    Field(&'static str),
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The value says it belongs to another service.
    #[error("the value names another service, {0:?}")]
    OtherService(String),
    /// Recognised, but not a format that is read here.
    #[error("a record of format {0}, which this source does not read")]
    Foreign(&'static str),
    /// No known format looks like this.
    #[error("the value is of no known format")]
    Unknown,
    /// The file entry is not as documented.
    #[error("{0}")]
    Entry(String),
}

/// A format under a root prefix: how one source spells its services. Cloning shares.
#[derive(Clone, Debug)]
pub struct Layout {
    format: &'static dyn Format,
    root: Arc<str>,
}

impl Layout {
    /// The layout of format `name` under `root`; none when no format has that name.
    pub fn new(name: &str, root: &str) -> Option<Self> {
        let format: &'static dyn Format = match name {
            "auto" => &auto::Auto,
            "etcd-naming" => &etcd_naming::ETCD_NAMING,
            "grpc-wrapper" => &etcd_naming::GRPC_WRAPPER,
            "koala" => &koala::Koala,
            "go-zero" => &go_zero::GoZero,
            "kratos" => &kratos::Kratos,
            _ => return None,
        };
        Some(Self { format, root: root.into() })
    }

    /// Prefix of all keys of this source; empty for the whole key space.
    pub fn root(&self) -> String {
        self.format.root(&self.root)
    }

    /// Prefix of the keys of `service`, ending in `/`; none when the format cannot spell it.
    pub fn prefix(&self, service: &ServiceName) -> Option<String> {
        self.format.prefix(&self.root, service)
    }

    /// Service that `key` belongs to: everything between the root and the last `/`. None for a key
    /// that names no service a caller could name.
    pub fn service_of(&self, key: &[u8]) -> Option<ServiceName> {
        let rest = key.strip_prefix(self.root().as_bytes())?;
        let end = rest.iter().rposition(|b| *b == b'/')?;
        if end + 1 == rest.len() {
            return None;
        }
        ServiceName::from_key(std::str::from_utf8(&rest[..end]).ok()?).ok()
    }

    /// Whether `key`, which lies under `prefix`, is an instance right there: the keys of
    /// `orders/eu/` are not shown under `orders/`.
    pub fn is_instance(prefix: &str, key: &[u8]) -> bool {
        let instance = key.get(prefix.len()..).unwrap_or_default();
        !instance.is_empty() && !instance.contains(&b'/')
    }

    /// Reads one key of `service`.
    ///
    /// # Errors
    /// [`RejectReason`] when it cannot be used.
    pub fn decode(
        &self,
        service: &ServiceName,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<Record>, RejectReason> {
        if key.len() > MAX_KEY {
            return Err(RejectReason::KeyTooLong(key.len()));
        }
        if value.len() > MAX_VALUE {
            return Err(RejectReason::ValueTooLarge(value.len()));
        }
        let full = std::str::from_utf8(key).map_err(|_| RejectReason::KeyNotText)?;
        let value = std::str::from_utf8(value).map_err(|_| RejectReason::ValueNotText)?;
        let instance = full.rsplit('/').next().unwrap_or(full);
        self.format.decode(&RecordKey { full, service, instance }, value.trim_end())
    }
}

impl Layout {
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
        let prefix = self.prefix(service).ok_or_else(cannot)?;
        self.format.encode(&prefix, service, record, lease)
    }
}

/// A key as reports show it: as it is where it is short text, else escaped and cut.
pub fn key_text(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) if key.len() <= MAX_KEY => text.into(),
        _ => {
            let head = &key[..key.len().min(200)];
            format!("{} ({} bytes)", head.escape_ascii(), key.len()).into()
        }
    }
}

#[cfg(test)]
mod tests;
