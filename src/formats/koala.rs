//! `koala`: one or more nodes a key.
//!
//! Key `path.Join(root, service, "ip:port")`, so doubled slashes vanish; value
//! `{"name":"hello","nodes":[{"id":"","ip":"10.0.0.1","port":8080,"weight":0}]}`. Weight 0 means 100
//! and `nodes` may be `null`. Koala's own reader lists without the last slash and shows `hello2` under
//! `hello`; this one does not, and checks the name too.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Address, Record, ServiceName};

use super::{EncodeError, Format, RecordKey, RejectReason, Written, json, weight::weight, write};

#[derive(Debug)]
pub(super) struct Koala;

/// Fields in the order of koala's `registry.Service` and `registry.Node`.
#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    nodes: [Node<'a>; 1],
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    ip: &'a str,
    port: u16,
    weight: u32,
}

impl Format for Koala {
    fn name(&self) -> &'static str {
        "koala"
    }

    fn root(&self, root: &str) -> String {
        match &*clean(root) {
            "" => String::new(),
            "/" => "/".to_owned(),
            root => format!("{root}/"),
        }
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        let root = self.root(root);
        let service = clean(&service.key());
        let bare = service.trim_start_matches('/');
        // Without a root, `path.Join` keeps the leading slash of a name. A name of slashes alone
        // would be the root itself.
        let service = if root.is_empty() { &service } else { bare };
        (!bare.is_empty()).then(|| format!("{root}{service}/"))
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Vec<Record>, RejectReason> {
        self.records(key, &json::object(value)?)
    }

    fn encode(
        &self,
        prefix: &str,
        service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::bare(self.name(), record)?;
        // Koala dials what it puts together of `ip`, a colon and `port`.
        write::no_ipv6(self.name(), record)?;
        let address = &record.address;
        let id = if record.id == address.as_str() { "" } else { &record.id };
        let (ip, port, weight) = (address.host(), address.port(), record.weight);
        let nodes = [Node { id, ip, port, weight }];
        let value = write::go_json(&Service { name: &service.key(), nodes });
        Ok(Written { key: format!("{prefix}{address}"), value })
    }
}

impl Koala {
    /// The endpoints in an object with `nodes`.
    pub(super) fn records(
        &self,
        key: &RecordKey<'_>,
        object: &Map<String, Value>,
    ) -> Result<Vec<Record>, RejectReason> {
        let name = json::field(object, "name").and_then(Value::as_str);
        let name = name.ok_or(RejectReason::Field("name"))?;
        let bare = |name: &str| clean(name).trim_start_matches('/').to_owned();
        if bare(name) != bare(&key.service.key()) {
            return Err(RejectReason::OtherService(name.to_owned()));
        }
        match json::raw(object, "nodes") {
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(nodes)) => nodes.iter().map(|node| self.node(node)).collect(),
            _ => Err(RejectReason::Field("nodes")),
        }
    }

    fn node(&self, node: &Value) -> Result<Record, RejectReason> {
        let node = node.as_object().ok_or(RejectReason::Field("nodes"))?;
        let port = json::field(node, "port").and_then(Value::as_u64);
        let port = port.ok_or(RejectReason::Field("port"))?;
        let address = address(json::text(node, "ip"), port)?;
        let mut record = Record::new(address, self.name());
        let id = json::text(node, "id");
        if !id.is_empty() {
            id.clone_into(&mut record.id);
        }
        record.weight = match weight(json::field(node, "weight")) {
            0 => Record::DEFAULT_WEIGHT,
            weight => weight,
        };
        Ok(record)
    }
}

/// An address from host and port; IPv6 has no brackets in this format.
fn address(host: &str, port: u64) -> Result<Address, RejectReason> {
    match (host.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) if port > 0 => Ok(SocketAddr::new(ip, port).into()),
        _ => Ok(format!("{host}:{port}").parse()?),
    }
}

/// Go's `path.Clean`, but the empty path stays empty. No `..` can be in it: neither
/// [`ServiceName`] nor the configuration lets one through.
fn clean(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let joined = segments.collect::<Vec<_>>().join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}
