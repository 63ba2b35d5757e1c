//! Metadata as formats carry it: a JSON object of labels, some of which every framework means alike.

use serde_json::{Map, Value};

use crate::model::Record;

use super::{json, weight::weight};

/// Takes `weight`, `version` and `zone` out of an object of labels, and keeps the other scalars as
/// metadata. Labels that are not there change nothing.
pub(super) fn take(record: &mut Record, labels: &Map<String, Value>) {
    if let Some(value) = json::field(labels, "weight") {
        record.weight = weight(Some(value));
    }
    for (key, value) in labels {
        let Some(value) = json::scalar(value) else { continue };
        match &*key.to_ascii_lowercase() {
            "weight" => {}
            "version" => record.version = value,
            "zone" => record.zone = value,
            _ => drop(record.metadata.insert(key.clone(), value)),
        }
    }
}

/// Takes a pair that is not from JSON as [`take`] takes a label. Empty values say nothing.
pub(super) fn add(record: &mut Record, key: &str, value: &str) {
    if !value.is_empty() {
        take(record, &Map::from_iter([(key.to_owned(), value.into())]));
    }
}

/// Takes some fields of an object as metadata, each unless it is empty.
pub(super) fn fields(record: &mut Record, object: &Map<String, Value>, names: &[&str]) {
    for name in names {
        let value = json::field(object, name).and_then(json::scalar);
        add(record, name, &value.unwrap_or_default());
    }
}

/// Keeps an endpoint out of every pick that is not pinned to it, and says why.
pub(super) fn forbid(record: &mut Record, reason: &str) {
    record.metadata.insert("state".to_owned(), "forbidden".to_owned());
    record.metadata.insert("state_reason".to_owned(), reason.to_owned());
}

/// Forbids an instance one of whose flags is `false`.
pub(super) fn need(record: &mut Record, object: &Map<String, Value>, flags: &[&str]) {
    let off = |flag: &&&str| json::field(object, flag).and_then(Value::as_bool) == Some(false);
    if let Some(flag) = flags.iter().find(off) {
        forbid(record, &format!("{flag} is false"));
    }
}
