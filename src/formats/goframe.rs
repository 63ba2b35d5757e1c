//! `goframe`: everything but metadata is in the key.
//!
//! Key `/service/default/default/<name>/<version>/<ip:port>[,<ip:port>..]`; value `{"protocol":"grpc"}`,
//! `{}` or empty. A server that listens on all interfaces lists the address of each. GoFrame's own
//! reader fails for all services over one key that it cannot take apart, and panics over IPv6.

use serde_json::Map;

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, json, labels,
    place, write,
};

#[derive(Debug)]
pub(super) struct GoFrame;

/// Version of a service that names none.
const LATEST: &str = "latest";

impl Format for GoFrame {
    fn name(&self) -> &'static str {
        "goframe"
    }

    fn default_root(&self) -> &'static str {
        "/service/default/default"
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        place::one_segment(root, service)
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        match place::segments(path)[..] {
            [name, version, addresses] if !version.is_empty() => {
                Place::new(name, addresses).into_iter().collect()
            }
            _ => Places::new(),
        }
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let metadata = if value.is_empty() { Map::new() } else { json::object(value)? };
        match json::text(&metadata, "protocol") {
            "grpc" | "" => {}
            other => return Err(RejectReason::NotGrpc(format!("it speaks {other}"))),
        }
        let version = key.path.split('/').nth(1).unwrap_or_default();
        Reading::of(key.instance.split(',').map(|address| {
            let mut record = Record::new(address.parse()?, self.name());
            labels::take(&mut record, &metadata);
            version.clone_into(&mut record.version);
            Ok(record)
        }))
    }

    fn encode(
        &self,
        prefix: &str,
        _service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::plaintext(self.name(), record)?;
        write::no_ipv6(self.name(), record)?;
        let version = if record.version.is_empty() { LATEST } else { &record.version };
        let version = write::segment(self.name(), "version", version)?;
        let mut metadata = write::labels(self.name(), record)?;
        metadata.remove("version");
        if metadata.insert("protocol".to_owned(), "grpc".to_owned()).is_some_and(|p| p != "grpc") {
            return Err(write::cannot(self.name(), "metadata protocol other than grpc"));
        }
        let value = write::go_json(&metadata);
        Ok(Written { key: format!("{prefix}{version}/{}", record.address), value })
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{left_out, read_at, services_of};

    #[test]
    fn one_bad_address_of_several_harms_no_other() {
        let path = "user/v1/10.0.0.1:80,nonsense,[::1]:80";
        let value = r#"{"protocol":"grpc","weight":7,"zone":"a"}"#;
        let reading = read_at("goframe", "user", path, value).unwrap();
        let seen: Vec<_> = reading.records.iter().map(|r| (r.address.as_str(), r.weight)).collect();
        assert_eq!(seen, [("10.0.0.1:80", 7), ("[::1]:80", 7)]);
        assert_eq!((&*reading.records[1].version, &*reading.records[1].zone), ("v1", "a"));
        assert_eq!(left_out(Ok(reading)), "address \"nonsense\" has no port");
    }

    #[test]
    fn servers_of_http_are_left_out() {
        let read = |value| read_at("goframe", "user", "user/latest/10.0.0.1:80", value);
        let http = r#"{"insecure":true,"protocol":"http"}"#;
        assert_eq!(left_out(read(http)), "not an endpoint for gRPC: it speaks http");
        assert_eq!(read("").unwrap().records.len(), 1);
        assert_eq!(read("{}").unwrap().records.len(), 1);
        assert!(read("nonsense").is_err());
    }

    #[test]
    fn a_key_of_another_shape_is_no_instance() {
        for path in ["short", "user/latest", "user//10.0.0.1:80", "a/b/latest/10.0.0.1:80"] {
            assert!(services_of("goframe", path).is_empty(), "{path}");
        }
    }
}
