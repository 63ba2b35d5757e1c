//! `koala`: one or more nodes a key.
//!
//! Key `path.Join(root, service, "ip:port")`, so doubled slashes vanish; value
//! `{"name":"hello","nodes":[{"id":"","ip":"10.0.0.1","port":8080,"weight":0}]}`. Weight 0 means 100
//! and `nodes` may be `null`. Koala's own reader lists without the last slash and shows `hello2` under
//! `hello`; this one does not, and checks the name too.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, host, json,
    weight::positive_or, write,
};

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

    fn default_root(&self) -> &'static str {
        "/ibinarytree/koala/service/"
    }

    fn root(&self, root: &str) -> String {
        match &*clean(root) {
            "/" => "/".to_owned(),
            root => format!("{root}/"),
        }
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        let name = service.key();
        let bare = name.strip_prefix('/').unwrap_or(&name);
        (clean(bare) == bare && !bare.is_empty()).then(|| format!("{root}{bare}/"))
    }

    /// A name may start with a slash, which `path.Join` drops from the key. The value tells.
    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        let Some((service, id)) = path.rsplit_once('/') else { return Places::new() };
        if service.is_empty() || service.starts_with('/') || clean(service) != service {
            return Places::new();
        }
        let names = [service, &format!("/{service}")];
        names.into_iter().filter_map(|name| Place::new(name, id)).collect()
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let object = json::object(value)?;
        // The second of its places, which is for a name that starts with a slash.
        if key.service.as_str().starts_with('~') && !json::text(&object, "name").starts_with('/') {
            return Ok(Reading::default());
        }
        self.records(key, &object)
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
    ) -> Result<Reading, RejectReason> {
        let name = json::field(object, "name").and_then(Value::as_str);
        let name = name.ok_or(RejectReason::Field("name"))?;
        if !key.is_of(clean(name).trim_start_matches('/')) {
            return Err(RejectReason::OtherService(name.to_owned()));
        }
        match json::raw(object, "nodes") {
            Some(Value::Null) => Ok(Reading::default()),
            Some(Value::Array(nodes)) => Reading::of(nodes.iter().map(|node| self.node(node))),
            _ => Err(RejectReason::Field("nodes")),
        }
    }

    fn node(&self, node: &Value) -> Result<Record, RejectReason> {
        let node = node.as_object().ok_or(RejectReason::Field("nodes"))?;
        let port = json::field(node, "port").and_then(Value::as_u64);
        let port = port.ok_or(RejectReason::Field("port"))?;
        let address = host::join(json::text(node, "ip"), port)?;
        let mut record = Record::new(address, self.name());
        let id = json::text(node, "id");
        if !id.is_empty() {
            id.clone_into(&mut record.id);
        }
        record.weight = positive_or(Record::DEFAULT_WEIGHT, json::field(node, "weight"));
        Ok(record)
    }
}

/// Go's `path.Clean`, but the empty path stays empty, and `..` stays what it is: no [`ServiceName`]
/// has one.
fn clean(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let joined = segments.collect::<Vec<_>>().join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{left_out, read_at};

    #[test]
    fn one_bad_node_of_several_harms_no_other() {
        let value = r#"{"name":"a","nodes":[{"ip":"","port":80},{"ip":"10.0.0.1","port":80}]}"#;
        let reading = read_at("koala", "a", "a/1", value).unwrap();
        assert_eq!(reading.records.len(), 1);
        assert!(left_out(Ok(reading)).contains("no usable host"));
    }
}
