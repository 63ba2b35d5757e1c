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
