//! `auto`: the format of each value by its shape.
//!
//! Per value and not per prefix, because shops that migrate mix formats, and a value of a second
//! format must not blank the set. What is recognisably of a format that is not read here is refused
//! by that format's name; nothing is guessed.

use serde_json::{Map, Value};

use super::{
    Format, Reading, RecordKey, RejectReason,
    etcd_naming::ETCD_NAMING,
    go_zero::{GoZero, is_plain},
    json,
    koala::Koala,
    kratos::Kratos,
};

#[derive(Debug)]
pub(super) struct Auto;

impl Format for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        match value {
            "" if is_dubbo_provider(key.path) => Err(RejectReason::Foreign("dubbo-interface")),
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
    let foreign = |format| Err(RejectReason::Foreign(format));
    if json::field(object, "Addr").is_some_and(Value::is_string) {
        if has("MetadataX") {
            return foreign("jupiter");
        }
        return Ok(ETCD_NAMING.record(key, object)?.into());
    }
    if has("ServiceName") && has("Host") && has("Port") {
        return foreign("dubbo-app");
    }
    if has("network") && has("address") {
        return foreign("kitex");
    }
    if has("addrs") && has("appid") {
        return foreign("kratos-v1");
    }
    let urls = json::field(object, "endpoints").and_then(Value::as_array);
    if urls.is_some_and(|urls| urls.iter().all(Value::is_string)) && has("name") && !has("nodes") {
        return Kratos.records(key, object);
    }
    match json::raw(object, "nodes") {
        Some(Value::Object(_)) => foreign("apisix"),
        Some(Value::Array(nodes)) => match nodes.first().and_then(Value::as_object) {
            _ if nodes.is_empty() => Ok(Reading::default()),
            Some(node) if json::raw(node, "ip").is_some() => Koala.records(key, object),
            Some(node) if json::raw(node, "address").is_some() => {
                foreign(if json::raw(node, "port").is_some() { "mqant" } else { "go-micro" })
            }
            Some(node) if json::raw(node, "host").is_some() => foreign("apisix"),
            _ => Err(RejectReason::Unknown),
        },
        // No instance: all formats with `nodes` agree on that.
        Some(Value::Null) => Ok(Reading::default()),
        Some(_) => Err(RejectReason::Unknown),
        None if is_skydns(object) => foreign("skydns"),
        None => Err(RejectReason::Unknown),
    }
}

fn is_skydns(object: &Map<String, Value>) -> bool {
    const FIELDS: [&str; 9] =
        ["host", "port", "priority", "weight", "text", "mail", "ttl", "targetstrip", "group"];
    json::field(object, "host").is_some_and(Value::is_string)
        && object.keys().all(|key| FIELDS.iter().any(|field| key.eq_ignore_ascii_case(field)))
}

/// Dubbo's interface level keeps the whole URL in the key and leaves the value empty.
fn is_dubbo_provider(key: &str) -> bool {
    let last = key.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    key.contains("/providers/") && last.contains("%3a%2f%2f")
}

/// Traefik keeps each field of a server under a key of its own.
fn is_traefik(key: &RecordKey<'_>, value: &str) -> bool {
    key.instance.eq_ignore_ascii_case("url") && value.contains("://")
}
