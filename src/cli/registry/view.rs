//! A record as the commands show it.

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;

use crate::model::Record;

/// What a record says, in the words of `GET /services/NAME`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RecordView {
    pub(super) address: String,
    pub(super) id: String,
    pub(super) weight: u32,
    pub(super) version: String,
    pub(super) zone: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tls: bool,
    pub(super) state: &'static str,
    pub(super) format: &'static str,
}

impl From<&Record> for RecordView {
    fn from(record: &Record) -> Self {
        Self {
            address: record.address.to_string(),
            id: record.id.clone(),
            weight: record.weight,
            version: record.version.clone(),
            zone: record.zone.clone(),
            metadata: record.metadata.clone(),
            tls: record.tls,
            state: record.state().as_str(),
            format: record.format,
        }
    }
}

impl RecordView {
    /// The id, unless it is the address: twice the same says nothing.
    pub(super) fn own_id(&self) -> &str {
        if self.id == self.address { "" } else { &self.id }
    }

    /// `key=value`, joined by commas.
    pub(super) fn metadata_text(&self) -> String {
        let pairs = self.metadata.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(",")
    }
}

/// The time now, in UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
