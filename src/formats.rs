//! Record formats: which keys hold a service, and what a value says.
//!
//! Discovery and the commands call [`Layout`], which owns the rules that all formats share: where the
//! root is, the bounds of keys and values, and that a service is shown its own keys and no others. A
//! [`Format`] knows one framework's spelling and nothing else; each is one file below. Reading never
//! fails as a whole: a value that cannot be used is a [`RejectReason`] for that key alone.

mod apisix;
mod auto;
mod dubbo_app;
mod dubbo_interface;
mod etcd_naming;
mod go_micro;
mod go_zero;
mod goframe;
mod habits;
mod host;
mod json;
mod jupiter;
mod kitex;
mod koala;
mod kratos;
mod kratos_v1;
mod labels;
mod layout;
mod mqant;
mod place;
mod reading;
mod rpcx;
mod skydns;
mod traefik;
mod weight;
mod write;

use std::fmt;

use crate::model::{Record, ServiceName};

use layout::MAX_URL_KEY;

pub use layout::{Layout, MAX_KEY, MAX_VALUE, Readings, key_text};
pub use place::{Place, Places, RecordKey};
pub use reading::{Reading, RejectReason};
pub use write::{EncodeError, Written};

pub use habits::{Habits, habits};

/// Names of the formats, as a source may name them.
pub const FORMATS: &[&str] = &[
    "auto",
    "etcd-naming",
    "grpc-wrapper",
    "koala",
    "go-zero",
    "kratos",
    "kratos-v1",
    "kitex",
    "hertz",
    "go-micro",
    "mqant",
    "goframe",
    "dubbo-app",
    "dubbo-interface",
    "rpcx",
    "jupiter",
    "skydns",
    "traefik",
    "apisix",
];

/// The formats behind these names, in the same order.
const ALL: &[&dyn Format] = &[
    &auto::Auto,
    &etcd_naming::ETCD_NAMING,
    &etcd_naming::GRPC_WRAPPER,
    &koala::Koala,
    &go_zero::GoZero,
    &kratos::Kratos,
    &kratos_v1::KratosV1,
    &kitex::KITEX,
    &kitex::HERTZ,
    &go_micro::GoMicro,
    &mqant::Mqant,
    &goframe::GoFrame,
    &dubbo_app::DubboApp,
    &dubbo_interface::DubboInterface,
    &rpcx::Rpcx,
    &jupiter::Jupiter,
    &skydns::SkyDns,
    &traefik::Traefik,
    &apisix::Apisix,
];

/// One framework's way of writing a service into etcd.
pub trait Format: fmt::Debug + Send + Sync {
    /// Name in configuration, records and reports.
    fn name(&self) -> &'static str;

    /// Where the framework itself puts its services unless told otherwise; empty for no root.
    fn default_root(&self) -> &'static str {
        ""
    }

    /// What all keys under `root` start with: it ends in `/`, or is empty for no root.
    fn root(&self, root: &str) -> String {
        if root.is_empty() || root.ends_with('/') { root.to_owned() } else { format!("{root}/") }
    }

    /// Longest key that is read, in bytes.
    fn max_key(&self) -> usize {
        MAX_KEY
    }

    /// Whether keys do not say whose they are until all are read, so that a source cannot list one
    /// service alone.
    fn is_whole(&self) -> bool {
        false
    }

    /// What all keys of a service start with; none for a service that this format cannot spell.
    /// `root` is one of [`Self::root`].
    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        Some(format!("{root}{}/", service.key()))
    }

    /// The services that a key belongs to, the nearest first; `path` is the key below the root. None
    /// for a key that is no instance. Each of them has a [`Self::prefix`] that the key starts with.
    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        Place::of_last_segment(path)
    }

    /// The service that a value names itself, where [`Self::is_whole`] and the key alone does not tell.
    fn named_by(&self, _path: &str, _value: &str) -> Option<ServiceName> {
        None
    }

    /// What `value` says of the instances at `key`. No record is a valid answer.
    ///
    /// # Errors
    /// [`RejectReason`] when nothing in the value can be used.
    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason>;

    /// What the framework itself would write for `record`, byte for byte. `prefix` is
    /// [`Self::prefix`] of the service.
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

#[cfg(test)]
mod tests;
