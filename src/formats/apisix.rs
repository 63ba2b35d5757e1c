//! `apisix`: the upstreams of APISIX, which are only read.
//!
//! Key `/apisix/upstreams/<id>`: the service is the id. Value `{"nodes":{"10.0.0.1:8080":1},"scheme":
//! "grpc","type":"roundrobin",..}`, where `nodes` may also be a list of `{"host","port","weight",
//! "priority","metadata"}`. Weight 0 takes no traffic. `http`, which is APISIX's default and often left
//! as it is, is taken for HTTP/2 without TLS, `grpcs` and `https` for TLS.

use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    Format, Place, Places, Reading, RecordKey, RejectReason, host, json, labels, place,
    weight::weight,
};

#[derive(Debug)]
pub(super) struct Apisix;

const UPSTREAMS: &str = "upstreams";

impl Format for Apisix {
    fn name(&self) -> &'static str {
        "apisix"
    }

    fn default_root(&self) -> &'static str {
        "/apisix"
    }

    /// The one key.
    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        let has_slash = service.as_str().contains('~');
        (!has_slash).then(|| format!("{root}{UPSTREAMS}/{service}"))
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        match place::segments(path)[..] {
            [UPSTREAMS, id] => Place::new(id, id).into_iter().collect(),
            _ => Places::new(),
        }
    }

    fn decode(&self, _key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let object = json::object(value)?;
        let scheme = json::text(&object, "scheme");
        let (port, tls) = match scheme {
            "" | "http" | "grpc" => (80, false),
            "https" | "grpcs" => (443, true),
            other => return Err(RejectReason::NotGrpc(format!("it speaks {other}"))),
        };
        let discovery = json::text(&object, "discovery_type");
        let record = |address, value: &Value| -> Result<Record, RejectReason> {
            let mut record = Record { tls, ..Record::new(address, self.name()) };
            json::labels(&object, "labels").for_each(|them| labels::take(&mut record, them));
            record.weight = weight(Some(value));
            Ok(record)
        };
        match json::raw(&object, "nodes") {
            Some(Value::Object(nodes)) => {
                Reading::of(nodes.iter().map(|(address, weight)| {
                    record(host::with_default_port(address, port)?, weight)
                }))
            }
            Some(Value::Array(nodes)) => Reading::of(nodes.iter().map(|node| {
                let node = node.as_object().ok_or(RejectReason::Field("nodes"))?;
                let port = json::field(node, "port").and_then(Value::as_u64).unwrap_or(port);
                let address = host::join(json::text(node, "host"), port)?;
                let weight = json::field(node, "weight").unwrap_or(&Value::Null);
                let mut record = record(address, weight)?;
                described(&mut record, node);
                Ok(record)
            })),
            _ if discovery.is_empty() => Ok(Reading::default()),
            _ => Err(RejectReason::NotGrpc(format!("its nodes are looked up in {discovery}"))),
        }
    }
}

/// Takes what a node says of itself, but for its weight.
fn described(record: &mut Record, node: &Map<String, Value>) {
    let weight = record.weight;
    json::labels(node, "metadata").for_each(|metadata| labels::take(record, metadata));
    labels::fields(record, node, &["priority"]);
    record.weight = weight;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{left_out, read_at, services_of};

    fn read(value: &str) -> Result<Reading, RejectReason> {
        read_at("apisix", "pay", "upstreams/pay", value)
    }

    fn seen(value: &str) -> Vec<(String, u32, bool)> {
        let records = read(value).unwrap().records;
        records.iter().map(|r| (r.address.to_string(), r.weight, r.tls)).collect()
    }

    #[test]
    fn nodes_come_as_an_object_or_as_a_list() {
        let object = r#"{"nodes":{"10.0.0.1:90":1,"b.local":0,"[::1]:9":2},"scheme":"grpcs"}"#;
        let all = [("10.0.0.1:90", 1, true), ("[::1]:9", 2, true), ("b.local:443", 0, true)];
        assert_eq!(
            seen(object),
            all.map(|(address, weight, tls)| (address.to_owned(), weight, tls))
        );
        let list = r#"{"nodes":[{"host":"10.0.0.1","port":90,"weight":5,"priority":-1,
            "metadata":{"zone":"a","weight":9}},{"host":"::1","weight":1}],"labels":{"version":"v2"}}"#;
        assert_eq!(
            seen(list),
            [("10.0.0.1:90".to_owned(), 5, false), ("[::1]:80".to_owned(), 1, false)]
        );
        let record = read(list).unwrap().records.remove(0);
        assert_eq!(
            (&*record.zone, &*record.version, &*record.metadata["priority"]),
            ("a", "v2", "-1")
        );
    }

    #[test]
    fn only_what_speaks_http_and_has_nodes_is_an_upstream_of_ours() {
        let discovered = r#"{"service_name":"a","discovery_type":"nacos","type":"roundrobin"}"#;
        assert!(left_out(read(discovered)).contains("looked up in nacos"));
        assert!(
            left_out(read(r#"{"scheme":"kafka","nodes":{"a:1":1}}"#)).contains("it speaks kafka")
        );
        let mixed = read(r#"{"nodes":{"10.0.0.1:90":1,"a b:1":1}}"#).unwrap();
        assert_eq!((mixed.records.len(), mixed.left_out.is_some()), (1, true));
        for path in ["routes/1", "upstreams/", "upstreams", "upstreams/a/b"] {
            assert!(services_of("apisix", path).is_empty(), "{path}");
        }
    }
}
