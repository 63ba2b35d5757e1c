//! `dubbo-app`: dubbo-go's application-level registration.
//!
//! Key `/services/<app>/<host>:<port>`; value a Go struct without names of its own: `{"ID":
//! "10.9.1.1:20000","ServiceName":"user-app","Host":"10.9.1.1","Port":20000,"Weight":0,"Enable":true,
//! "Healthy":true,"Metadata":{"dubbo.endpoints":"[{\"port\":20000,\"protocol\":\"tri\"}]",..},
//! "ServiceMetadata":null,"Address":"","GroupName":"","Tag":""}` and a newline. Weight 0 means 100.
//! `tri` and `grpc` can be called; `dubbo` is no HTTP/2.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, host, json,
    labels, place, weight::positive_or, write,
};

#[derive(Debug)]
pub(super) struct DubboApp;

/// Which ports speak what: JSON within JSON.
const ENDPOINTS: &str = "dubbo.endpoints";

/// Fields in the order of dubbo-go's `DefaultServiceInstance`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instance<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    service_name: &'a str,
    host: &'a str,
    port: u16,
    weight: u32,
    enable: bool,
    healthy: bool,
    metadata: BTreeMap<String, String>,
    service_metadata: Option<()>,
    address: &'a str,
    group_name: &'a str,
    tag: &'a str,
}

impl Format for DubboApp {
    fn name(&self) -> &'static str {
        "dubbo-app"
    }

    fn default_root(&self) -> &'static str {
        "/services"
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        place::one_segment(root, service)
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        Place::of_two_segments(path)
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        read(key, &json::object(value)?)
    }

    fn encode(
        &self,
        prefix: &str,
        service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::plaintext(self.name(), record)?;
        write::positive_weight(self.name(), record)?;
        write::no_ipv6(self.name(), record)?;
        let (address, host, port) =
            (record.address.as_str(), record.address.host(), record.address.port());
        let mut metadata = write::labels(self.name(), record)?;
        metadata.remove("weight");
        let endpoints = format!(r#"[{{"port":{port},"protocol":"tri"}}]"#);
        for (key, value) in [(ENDPOINTS, &*endpoints), ("dubbo.metadata.storage-type", "local")] {
            metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let instance = Instance {
            id: address,
            service_name: &service.key(),
            host,
            port,
            weight: record.weight,
            enable: true,
            healthy: true,
            metadata,
            service_metadata: None,
            address,
            group_name: "",
            tag: "",
        };
        let value = write::go_json(&instance) + "\n";
        Ok(Written { key: format!("{prefix}{address}"), value })
    }
}

pub(super) fn read(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
) -> Result<Reading, RejectReason> {
    let name = json::text(object, "ServiceName");
    if !key.is_of(name) {
        return Err(RejectReason::OtherService(name.to_owned()));
    }
    let metadata = json::labels(object, "Metadata").next();
    let port = json::field(object, "Port").and_then(Value::as_u64);
    let port = match metadata.and_then(|metadata| callable(json::text(metadata, ENDPOINTS))) {
        Some(port) => port?,
        None => port.ok_or(RejectReason::Field("Port"))?,
    };
    let host = json::text(object, "Host");
    let mut record = Record::new(host::join(host, port)?, DubboApp.name());
    let kept = metadata.into_iter().flatten().filter(|(key, _)| *key != ENDPOINTS);
    labels::take(&mut record, &kept.map(|(k, v)| (k.clone(), v.clone())).collect());
    labels::fields(&mut record, object, &["GroupName", "Tag"]);
    record.weight = positive_or(Record::DEFAULT_WEIGHT, json::field(object, "Weight"));
    let id = json::text(object, "ID");
    (if id.is_empty() { key.instance } else { id }).clone_into(&mut record.id);
    labels::need(&mut record, object, &["Enable", "Healthy"]);
    Ok(record.into())
}

/// The port to call, `tri` before `grpc`; none where the text says nothing.
fn callable(endpoints: &str) -> Option<Result<u64, RejectReason>> {
    let endpoints: Vec<Map<String, Value>> = serde_json::from_str(endpoints).ok()?;
    let speaks = |protocol| endpoints.iter().find(|e| json::text(e, "protocol") == protocol);
    let Some(endpoint) = speaks("tri").or_else(|| speaks("grpc")) else {
        let protocol = json::text(endpoints.first()?, "protocol");
        return Some(Err(RejectReason::NotGrpc(format!("it speaks {protocol}"))));
    };
    json::field(endpoint, "port").and_then(Value::as_u64).map(Ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::formats::tests::{left_out, read_at};

    fn value(endpoints: &str) -> String {
        json!({
            "ServiceName": "a", "Host": "10.0.0.1", "Port": 1, "Enable": true, "Healthy": true,
            "Metadata": {ENDPOINTS: endpoints, "zone": "z"}, "Tag": "gray",
        })
        .to_string()
    }

    #[test]
    fn the_port_that_speaks_grpc_is_taken() {
        for (endpoints, address) in [
            (r#"[{"port":2,"protocol":"dubbo"},{"port":3,"protocol":"tri"}]"#, "10.0.0.1:3"),
            (r#"[{"port":4,"protocol":"grpc"},{"port":3,"protocol":"tri"}]"#, "10.0.0.1:3"),
            (r#"[{"port":4,"protocol":"grpc"}]"#, "10.0.0.1:4"),
            ("[]", "10.0.0.1:1"),
            ("nonsense", "10.0.0.1:1"),
        ] {
            let record =
                read_at("dubbo-app", "a", "a/1", &value(endpoints)).unwrap().records.remove(0);
            assert_eq!(record.address.as_str(), address, "{endpoints}");
            assert_eq!((&*record.zone, &*record.metadata["Tag"]), ("z", "gray"));
        }
        let dubbo = read_at("dubbo-app", "a", "a/1", &value(r#"[{"port":2,"protocol":"dubbo"}]"#));
        assert_eq!(left_out(dubbo), "not an endpoint for gRPC: it speaks dubbo");
    }

    #[test]
    fn a_sick_instance_is_kept_out_of_picks() {
        let reason = |flag: &str| {
            let value =
                value("").replace(&format!("\"{flag}\":true"), &format!("\"{flag}\":false"));
            let record = read_at("dubbo-app", "a", "a/1", &value).unwrap().records.remove(0);
            assert_eq!(record.metadata["state"], "forbidden");
            record.metadata["state_reason"].clone()
        };
        assert_eq!(reason("Healthy"), "Healthy is false");
        assert_eq!(reason("Enable"), "Enable is false");
    }
}
