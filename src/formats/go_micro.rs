//! `go-micro`: one service object a node, most of it a description of its methods.
//!
//! Key `/micro/registry/<name>/<id>`, in micro 2 and 3 `/micro/registry/<domain>/<name>/<id>`, before
//! `/micro-registry/<name>/<id>`; value `{"name":"greeter","version":"latest","metadata":null,
//! "endpoints":[..],"nodes":[{"id":"greeter-1","address":"10.0.0.1:9090","metadata":{"protocol":
//! "grpc",..}}]}`. Keys spell `/` as `-`, so that the value has to tell `a/b` from `a-b`. Only nodes
//! with `protocol` `grpc` speak it. Before 1.8 a node had its `port` apart.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Address, Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, host, json,
    labels, place, write,
};

#[derive(Debug)]
pub(super) struct GoMicro;

/// Version of a service that names none.
const LATEST: &str = "latest";
/// What a node's metadata says of one that speaks gRPC, as go-micro's own server writes it.
const SPEAKS_GRPC: [(&str, &str); 5] = [
    ("broker", "http"),
    ("protocol", "grpc"),
    ("registry", "etcd"),
    ("server", "grpc"),
    ("transport", "grpc"),
];

/// Fields in the order of go-micro's `registry.Service` and `registry.Node`.
#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    version: &'a str,
    metadata: Option<()>,
    endpoints: Option<()>,
    nodes: [Node<'a>; 1],
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    address: &'a str,
    metadata: BTreeMap<String, String>,
}

impl Format for GoMicro {
    fn name(&self) -> &'static str {
        "go-micro"
    }

    fn default_root(&self) -> &'static str {
        "/micro/registry"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        Some(format!("{root}{}/", dashed(&service.key())))
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        match place::segments(path)[..] {
            [name, id] | [_, name, id] => Place::new(name, id).into_iter().collect(),
            _ => Places::new(),
        }
    }

    fn named_by(&self, path: &str, value: &str) -> Option<ServiceName> {
        named_by(path, value)
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
        let mut metadata = write::labels(self.name(), record)?;
        metadata.remove("version");
        for (key, value) in SPEAKS_GRPC {
            metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        if metadata["protocol"] != "grpc" {
            return Err(write::cannot(self.name(), "metadata protocol other than grpc"));
        }
        let (id, address) = (&*record.id, record.address.as_str());
        let version = if record.version.is_empty() { LATEST } else { &record.version };
        let nodes = [Node { id, address, metadata }];
        let name = &service.key();
        let value = Service { name, version, metadata: None, endpoints: None, nodes };
        Ok(Written { key: format!("{prefix}{}", dashed(id)), value: write::go_json(&value) })
    }
}

/// How keys spell a name or an id.
fn dashed(text: &str) -> String {
    text.replace('/', "-")
}

/// The service that a value names, if that is what its key may stand for.
pub(super) fn named_by(path: &str, value: &str) -> Option<ServiceName> {
    let object = json::object(value).ok()?;
    let name = json::text(&object, "name");
    let spelled = path.rsplit('/').nth(1)?;
    (dashed(name) == spelled).then(|| ServiceName::from_key(name).ok()).flatten()
}

/// The nodes that speak gRPC.
pub(super) fn read(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
) -> Result<Reading, RejectReason> {
    nodes(key, object, |node| {
        let protocol = json::labels(node, "metadata").map(|m| json::text(m, "protocol")).next();
        match protocol.unwrap_or_default() {
            "grpc" => record(GoMicro.name(), object, node, address(node)?),
            "" => Err(RejectReason::NotGrpc("its metadata names no `protocol`".to_owned())),
            other => Err(RejectReason::NotGrpc(format!("it speaks {other}"))),
        }
    })
}

/// Each node of a service, if it is the one that is read.
pub(super) fn nodes(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
    read: impl Fn(&Map<String, Value>) -> Result<Record, RejectReason>,
) -> Result<Reading, RejectReason> {
    let name = json::text(object, "name");
    // Of a source that is rooted higher up, keys are all that is known.
    if !key.is_of(name) && !key.is_of(&dashed(name)) {
        return Err(RejectReason::OtherService(name.to_owned()));
    }
    match json::raw(object, "nodes") {
        Some(Value::Null) => Ok(Reading::default()),
        Some(Value::Array(nodes)) => Reading::of(
            nodes
                .iter()
                .map(|node| node.as_object().ok_or(RejectReason::Field("nodes")).and_then(&read)),
        ),
        _ => Err(RejectReason::Field("nodes")),
    }
}

/// The address of a node, with the port in it or apart.
pub(super) fn address(node: &Map<String, Value>) -> Result<Address, RejectReason> {
    let address = json::field(node, "address").and_then(Value::as_str);
    let address = address.ok_or(RejectReason::Field("address"))?;
    match json::field(node, "port").and_then(Value::as_u64) {
        Some(port) if port > 0 => host::join(address, port),
        _ => Ok(address.parse()?),
    }
}

/// A node's record, described by its own metadata before that of its service.
pub(super) fn record(
    format: &'static str,
    service: &Map<String, Value>,
    node: &Map<String, Value>,
    address: Address,
) -> Result<Record, RejectReason> {
    let mut record = Record::new(address, format);
    let metadata = json::labels(service, "metadata").chain(json::labels(node, "metadata"));
    metadata.for_each(|metadata| labels::take(&mut record, metadata));
    labels::add(&mut record, "version", json::text(service, "version"));
    let id = json::text(node, "id");
    if !id.is_empty() {
        id.clone_into(&mut record.id);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{left_out, read_at};
    use crate::formats::{Layout, RejectReason};

    fn value(name: &str, nodes: &str) -> String {
        format!(r#"{{"name":"{name}","version":"v1","metadata":{{"domain":"d"}},"nodes":{nodes}}}"#)
    }

    const NODE: &str =
        r#"[{"metadata":{"protocol":"grpc","weight":"7"},"id":"n","address":"10.0.0.1:80"}]"#;

    #[test]
    fn the_value_tells_whose_it_is_where_keys_are_alike() {
        let layout = Layout::new("go-micro", "").unwrap();
        let owner = |key: &str, name: &str| {
            let read = layout.read(key.as_bytes(), value(name, NODE).as_bytes());
            let [(service, reading)] = &read[..] else { panic!("{read:?}") };
            (service.to_string(), reading.is_ok())
        };
        assert_eq!(owner("/micro/registry/a-b/n", "a/b"), ("a~b".to_owned(), true));
        assert_eq!(owner("/micro/registry/a-b/n", "a-b"), ("a-b".to_owned(), true));
        assert_eq!(owner("/micro/registry/d/a-b/n", "a/b"), ("a~b".to_owned(), true));
        assert_eq!(owner("/micro/registry/pay/n", "orders"), ("pay".to_owned(), false));
        assert!(layout.read(b"/micro/registry/a/b/c/n", value("c", NODE).as_bytes()).is_empty());
    }

    #[test]
    fn nodes_are_read_by_field_names_whatever_their_order() {
        let reading = read_at("go-micro", "a", "a/n", &value("a", NODE)).unwrap();
        let record = &reading.records[0];
        assert_eq!((&*record.id, record.weight, &*record.version), ("n", 7, "v1"));
        assert_eq!(record.metadata["domain"], "d");
        let old = r#"[{"id":"n","address":"fd00::1","port":80,"metadata":{"protocol":"grpc"}}]"#;
        let reading = read_at("go-micro", "a", "a/n", &value("a", old)).unwrap();
        assert_eq!(reading.records[0].address.as_str(), "[fd00::1]:80");
    }

    #[test]
    fn only_nodes_that_say_grpc_are_taken_and_one_of_them_harms_no_other() {
        let mucp = r#"{"id":"m","address":"10.0.0.2:80","metadata":{"protocol":"mucp"}}"#;
        let both = NODE.replace(']', &format!(",{mucp}]"));
        let reading = read_at("go-micro", "a", "a/n", &value("a", &both)).unwrap();
        assert_eq!(reading.records.len(), 1);
        assert_eq!(left_out(Ok(reading)), "not an endpoint for gRPC: it speaks mucp");
        let web = r#"[{"id":"w","address":"10.0.0.2:80","metadata":null}]"#;
        let reading = read_at("go-micro", "a", "a/n", &value("a", web));
        assert_eq!(left_out(reading), "not an endpoint for gRPC: its metadata names no `protocol`");
        let bad = read_at("go-micro", "a", "a/n", &value("a", "7"));
        assert_eq!(bad, Err(RejectReason::Field("nodes")));
    }
}
