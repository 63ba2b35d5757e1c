//! `etcd-naming`: etcd's own naming package, and `grpc-wrapper`, which writes the same.
//!
//! Key `<service>/<id>`; value `{"Op":0,"Addr":"10.0.0.1:8080","Metadata":null}`. The id is opaque,
//! often but not always the address, and may have slashes: etcd's resolver of `a` shows `a/b/1`, too. `Op` says nothing in a stored value: official readers take every
//! put as an addition.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, json, labels,
    write,
};

/// etcd's naming package under one of its names.
#[derive(Debug)]
pub(super) struct EtcdNaming(&'static str);

pub(super) const ETCD_NAMING: EtcdNaming = EtcdNaming("etcd-naming");
pub(super) const GRPC_WRAPPER: EtcdNaming = EtcdNaming("grpc-wrapper");

/// Fields in the order of etcd's `naming.Update`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    op: u8,
    addr: &'a str,
    metadata: Option<BTreeMap<String, String>>,
}

impl Format for EtcdNaming {
    fn name(&self) -> &'static str {
        self.0
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        let slashes = path.rmatch_indices('/');
        slashes.filter_map(|(at, _)| Place::new(&path[..at], &path[at + 1..])).collect()
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        Ok(self.record(key, &json::object(value)?)?.into())
    }

    fn encode(
        &self,
        prefix: &str,
        _service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::plaintext(self.0, record)?;
        let id = write::segment(self.0, "id", &record.id)?;
        let metadata = Some(write::labels(self.0, record)?).filter(|labels| !labels.is_empty());
        let update = Update { op: 0, addr: record.address.as_str(), metadata };
        Ok(Written { key: format!("{prefix}{id}"), value: write::go_json(&update) })
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
            Some(Value::Object(metadata)) => labels::take(&mut record, metadata),
            Some(Value::String(text)) if !text.is_empty() => {
                record.metadata.insert("metadata".to_owned(), text.clone());
            }
            _ => {}
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{read_at, services_of};

    const VALUE: &str = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;

    #[test]
    fn a_service_has_the_keys_below_it_as_etcd_resolves_them() {
        assert_eq!(services_of("etcd-naming", "orders/eu/1"), ["orders~eu", "orders"]);
        assert_eq!(services_of("grpc-wrapper", "/a/b/1"), ["~a~b", "~a"]);
        let read = read_at("etcd-naming", "orders", "orders/eu/1", VALUE).unwrap();
        assert_eq!(read.records[0].id, "eu/1");
    }

    #[test]
    fn auto_cannot_know_and_has_each_key_in_one_service() {
        assert_eq!(services_of("auto", "orders/eu/1"), ["orders~eu"]);
    }
}
