//! `auto`: the format of each value by its shape.
//!
//! Per value and not per prefix, because shops that migrate mix formats, and a value of a second
//! format must not blank the set. What is recognisably of a format that is not read here is refused
//! by that format's name; nothing is guessed.

use serde_json::{Map, Value};

use super::{
    Format, Reading, RecordKey, RejectReason, dubbo_app,
    dubbo_interface::is_provider,
    etcd_naming::ETCD_NAMING,
    go_micro,
    go_zero::{GoZero, is_plain},
    json,
    kitex::KITEX,
    koala::Koala,
    kratos,
};

#[derive(Debug)]
pub(super) struct Auto;

impl Format for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        match value {
            "" if is_provider(key.path) => Err(RejectReason::Foreign("dubbo-interface")),
            // Markers that frameworks leave behind: nothing to dial, nothing wrong.
            "" | "init_dir" | "rpcx_path" => Ok(Reading::default()),
            _ if value.starts_with('{') => by_fields(key, &json::object(value)?),
            _ if is_plain(value) => GoZero.decode(key, value),
            _ if is_traefik(key, value) => Err(RejectReason::Foreign("traefik")),
            _ => Err(RejectReason::Unknown),
        }
    }
}

/// The first shape that fits, from the most telling fields to the least.
fn by_fields(key: &RecordKey<'_>, object: &Map<String, Value>) -> Result<Reading, RejectReason> {
    let has = |name| json::raw(object, name).is_some();
    let urls = json::field(object, "endpoints").and_then(Value::as_array);
    let are_urls = || urls.is_some_and(|urls| urls.iter().all(Value::is_string));
    if json::field(object, "Addr").is_some_and(Value::is_string) {
        if has("MetadataX") {
            return Err(RejectReason::Foreign("jupiter"));
        }
        return Ok(ETCD_NAMING.record(key, object)?.into());
    }
    if has("ServiceName") && has("Host") && has("Port") {
        return dubbo_app::read(key, object);
    }
    if has("network") && has("address") {
        return KITEX.read(key, object);
    }
    if (has("addrs") && has("appid")) || (has("name") && !has("nodes") && are_urls()) {
        return kratos::read(key, object);
    }
    match json::raw(object, "nodes") {
        Some(nodes) => by_nodes(key, object, nodes),
        None if is_skydns(object) => Err(RejectReason::Foreign("skydns")),
        None => Err(RejectReason::Unknown),
    }
}

/// Several frameworks have a list of that name.
fn by_nodes(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
    nodes: &Value,
) -> Result<Reading, RejectReason> {
    let first = match nodes {
        Value::Object(_) => return Err(RejectReason::Foreign("apisix")),
        Value::Array(nodes) if !nodes.is_empty() => nodes[0].as_object(),
        // No instance: all of them agree on that.
        Value::Null | Value::Array(_) => return Ok(Reading::default()),
        _ => None,
    };
    let node = first.ok_or(RejectReason::Unknown)?;
    let has = |name| json::raw(node, name).is_some();
    let speaks = |metadata: &Map<String, Value>| json::raw(metadata, "protocol").is_some();
    if has("ip") {
        Koala.records(key, object)
    } else if has("address") {
        // Alike but for what can be dialled: mqant says nothing of protocols.
        if has("port") && !json::labels(node, "metadata").any(speaks) {
            return Err(RejectReason::Foreign("mqant"));
        }
        go_micro::read(key, object)
    } else if has("host") {
        Err(RejectReason::Foreign("apisix"))
    } else {
        Err(RejectReason::Unknown)
    }
}

fn is_skydns(object: &Map<String, Value>) -> bool {
    const FIELDS: [&str; 9] =
        ["host", "port", "priority", "weight", "text", "mail", "ttl", "targetstrip", "group"];
    json::field(object, "host").is_some_and(Value::is_string)
        && object.keys().all(|key| FIELDS.iter().any(|field| key.eq_ignore_ascii_case(field)))
}

/// Traefik keeps each field of a server under a key of its own.
fn is_traefik(key: &RecordKey<'_>, value: &str) -> bool {
    key.instance.eq_ignore_ascii_case("url") && value.contains("://")
}
