//! `kitex`: kitex-contrib's registry, and `hertz`, which writes the same below another prefix.
//!
//! Key `kitex/registry-etcd/<service>/<host:port>`; value `{"network":"tcp","address":"10.0.0.1:8888",
//! "weight":10,"tags":null}`. A weight of 0 or less means 10. Nothing in a record tells whether the
//! server speaks gRPC or Thrift.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, json, labels,
    place, weight::positive_or, write,
};

/// The registry under one of its names, with its prefix.
#[derive(Debug)]
pub(super) struct Kitex(&'static str, &'static str);

pub(super) const KITEX: Kitex = Kitex("kitex", "kitex/registry-etcd");
pub(super) const HERTZ: Kitex = Kitex("hertz", "hertz/registry-etcd");

/// Of both frameworks.
const DEFAULT_WEIGHT: u32 = 10;

/// Fields in the order of kitex-contrib's `instanceInfo`.
#[derive(Serialize)]
struct Instance<'a> {
    network: &'static str,
    address: &'a str,
    weight: u32,
    tags: Option<BTreeMap<String, String>>,
}

impl Format for Kitex {
    fn name(&self) -> &'static str {
        self.0
    }

    fn default_root(&self) -> &'static str {
        self.1
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        place::one_segment(root, service)
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        Place::of_two_segments(path)
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        self.read(key, &json::object(value)?)
    }

    fn encode(
        &self,
        prefix: &str,
        _service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::plaintext(self.0, record)?;
        write::positive_weight(self.0, record)?;
        if prefix.contains('%') {
            return Err(write::cannot(
                self.0,
                "a prefix with `%`, which its readers take for a verb",
            ));
        }
        let mut tags = write::labels(self.0, record)?;
        tags.remove("weight");
        let address = record.address.as_str();
        // Whoever names no weight wants as much as its siblings, who have the framework's default.
        let weight = match record.weight {
            Record::DEFAULT_WEIGHT => DEFAULT_WEIGHT,
            weight => weight,
        };
        let tags = Some(tags).filter(|tags| !tags.is_empty());
        let instance = Instance { network: "tcp", address, weight, tags };
        Ok(Written { key: format!("{prefix}{address}"), value: write::go_json(&instance) })
    }
}

impl Kitex {
    pub(super) fn read(
        &self,
        key: &RecordKey<'_>,
        object: &Map<String, Value>,
    ) -> Result<Reading, RejectReason> {
        let network = json::text(object, "network");
        if !["", "tcp", "tcp4", "tcp6"].contains(&network) {
            return Err(RejectReason::NotGrpc(format!("it listens on network {network:?}")));
        }
        let address = json::field(object, "address").and_then(Value::as_str);
        let address = address.ok_or(RejectReason::Field("address"))?.parse()?;
        let mut record = Record::new(address, self.0);
        key.instance.clone_into(&mut record.id);
        json::labels(object, "tags").for_each(|tags| labels::take(&mut record, tags));
        record.weight = positive_or(DEFAULT_WEIGHT, json::field(object, "weight"));
        Ok(record.into())
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{left_out, read_at, services_of};

    #[test]
    fn a_weight_that_is_not_positive_is_ten() {
        for (weight, read) in [("0", 10), ("-1", 10), ("null", 10), ("100", 100)] {
            let value = format!(r#"{{"network":"tcp","address":"10.0.0.1:80","weight":{weight}}}"#);
            let reading = read_at("hertz", "a", "a/1", &value).unwrap();
            assert_eq!((reading.records[0].weight, reading.records[0].format), (read, "hertz"));
        }
    }

    #[test]
    fn a_server_on_a_unix_socket_is_out_of_reach() {
        let value = r#"{"network":"unix","address":"/run/a.sock","weight":10,"tags":null}"#;
        let reason = left_out(read_at("kitex", "a", "a/1", value));
        assert_eq!(reason, "not an endpoint for gRPC: it listens on network \"unix\"");
    }

    #[test]
    fn a_service_has_no_slash() {
        assert_eq!(services_of("kitex", "a/1"), ["a"]);
        assert!(services_of("kitex", "a/b/1").is_empty());
    }
}
