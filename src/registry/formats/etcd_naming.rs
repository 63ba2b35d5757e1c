//! `etcd-naming`: etcd's own naming package, and `grpc-wrapper`, which writes the same.
//!
//! Key `<service>/<id>`; value `{"Op":0,"Addr":"10.0.0.1:8080","Metadata":null}`. The id is opaque,
//! often but not always the address. `Op` says nothing in a stored value: official readers take every
//! put as an addition.

use serde_json::{Map, Value};

use crate::model::Record;

use super::{Format, RecordKey, RejectReason, json, weight::weight};

/// etcd's naming package under one of its names.
#[derive(Debug)]
pub(super) struct EtcdNaming(&'static str);

pub(super) const ETCD_NAMING: EtcdNaming = EtcdNaming("etcd-naming");
pub(super) const GRPC_WRAPPER: EtcdNaming = EtcdNaming("grpc-wrapper");

impl Format for EtcdNaming {
    fn name(&self) -> &'static str {
        self.0
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Vec<Record>, RejectReason> {
        Ok(vec![self.record(key, &json::object(value)?)?])
    }
}

impl EtcdNaming {
    /// The endpoint in an object with `Addr`.
    pub(super) fn record(
        &self,
        key: &RecordKey<'_>,
        object: &Map<String, Value>,
    ) -> Result<Record, RejectReason> {
        let address = json::field(object, "Addr").and_then(Value::as_str);
        let address = address.ok_or(RejectReason::Field("Addr"))?.parse()?;
        let mut record = Record { id: key.instance.to_owned(), ..Record::new(address, self.0) };
        match json::field(object, "Metadata") {
            Some(Value::Object(metadata)) => describe(&mut record, metadata),
            Some(Value::String(text)) if !text.is_empty() => {
                record.metadata.insert("metadata".to_owned(), text.clone());
            }
            _ => {}
        }
        Ok(record)
    }
}

/// Takes weight, version and zone from an object of metadata, and keeps the other scalars.
fn describe(record: &mut Record, metadata: &Map<String, Value>) {
    record.weight = weight(json::field(metadata, "weight"));
    for (key, value) in metadata {
        let Some(value) = json::scalar(value) else { continue };
        match &*key.to_ascii_lowercase() {
            "weight" => {}
            "version" => record.version = value,
            "zone" => record.zone = value,
            _ => drop(record.metadata.insert(key.clone(), value)),
        }
    }
}
