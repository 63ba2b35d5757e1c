//! `kratos`: one JSON object an instance, with a URL for each protocol that it serves.
//!
//! Key `<namespace>/<name>/<id>`; value `{"id":"1","name":"helloworld","version":"v1","metadata":{},
//! "endpoints":["http://10.0.0.1:8000","grpc://10.0.0.1:9000"]}`. As kratos clients do, the first
//! usable `grpc` endpoint is taken; TLS is `grpcs`, before kratos 2.4 `?isSecure=true`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Reading, RecordKey, RejectReason, Written, host::Url, json, kratos_v1,
    labels, write,
};

#[derive(Debug)]
pub(super) struct Kratos;

/// Fields in the order of kratos' `registry.ServiceInstance`.
#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    metadata: Option<BTreeMap<String, String>>,
    endpoints: [String; 1],
}

impl Format for Kratos {
    fn name(&self) -> &'static str {
        "kratos"
    }

    fn default_root(&self) -> &'static str {
        "/microservices"
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
        let id = write::segment(self.name(), "id", &record.id)?;
        let scheme = if record.tls { "grpcs" } else { "grpc" };
        let mut labels = write::labels(self.name(), record)?;
        labels.remove("version");
        let instance = Instance {
            id,
            name: &service.key(),
            version: &record.version,
            metadata: Some(labels).filter(|labels| !labels.is_empty()),
            endpoints: [format!("{scheme}://{}", record.address)],
        };
        Ok(Written { key: format!("{prefix}{id}"), value: write::go_json(&instance) })
    }
}

/// What a value of kratos 1, 2 or 3 says.
pub(super) fn read(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
) -> Result<Reading, RejectReason> {
    if json::raw(object, "addrs").is_some() {
        return kratos_v1::read(key, object);
    }
    let name = json::text(object, "name");
    if !key.is_of(name) {
        return Err(RejectReason::OtherService(name.to_owned()));
    }
    let Some(mut record) = endpoint(Kratos.name(), object, "endpoints")? else {
        return Ok(Reading::default());
    };
    json::labels(object, "metadata").for_each(|metadata| labels::take(&mut record, metadata));
    let id = json::text(object, "id");
    (if id.is_empty() { key.instance } else { id }).clone_into(&mut record.id);
    let version = json::text(object, "version");
    labels::add(&mut record, "version", version);
    Ok(record.into())
}

/// The first usable gRPC endpoint in a list of URLs; none in an empty list.
pub(super) fn endpoint(
    format: &'static str,
    object: &Map<String, Value>,
    field: &'static str,
) -> Result<Option<Record>, RejectReason> {
    let urls = match json::raw(object, field) {
        Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str),
        Some(Value::Null) => return Ok(None),
        _ => return Err(RejectReason::Field(field)),
    };
    let mut bad = None;
    for text in urls {
        let url = Url::parse(text).filter(|url| ["grpc", "grpcs"].contains(&url.scheme));
        let Some(url) = url else {
            bad.get_or_insert_with(|| RejectReason::NotGrpc(format!("it serves {text}")));
            continue;
        };
        match url.authority.parse() {
            Ok(address) => {
                let secure = || url.pairs().any(|pair| pair == ("isSecure".into(), "true".into()));
                let tls = url.scheme == "grpcs" || secure();
                return Ok(Some(Record { tls, ..Record::new(address, format) }));
            }
            // What is wrong with an endpoint for gRPC says more than that there are others.
            Err(error) => bad = Some(error.into()),
        }
    }
    bad.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use crate::formats::RejectReason;
    use crate::formats::tests::{left_out, read_at};

    fn read(endpoints: &str) -> Result<super::Reading, RejectReason> {
        let value = format!(r#"{{"id":"i","name":"a","version":"v1","endpoints":{endpoints}}}"#);
        read_at("kratos", "a", "a/1", &value)
    }

    #[test]
    fn the_first_usable_grpc_endpoint_is_the_one() {
        for (endpoints, address, tls) in [
            (
                r#"["http://10.0.0.1:80","grpc://10.0.0.1:90","grpc://10.0.0.2:90"]"#,
                "10.0.0.1:90",
                false,
            ),
            (r#"["grpcs://10.0.0.1:90/"]"#, "10.0.0.1:90", true),
            (r#"["grpc://[::1]:90?isSecure=true"]"#, "[::1]:90", true),
            (r#"["grpc://a:90?isSecure=false&x=isSecure=true"]"#, "a:90", false),
            (r#"["grpc://:0", 7, "grpc://a.local:90"]"#, "a.local:90", false),
        ] {
            let record = read(endpoints).unwrap().records.remove(0);
            assert_eq!((record.address.as_str(), record.tls), (address, tls), "{endpoints}");
            assert_eq!((&*record.id, &*record.version), ("i", "v1"));
        }
    }

    #[test]
    fn an_instance_without_grpc_says_what_it_serves() {
        let reason = "not an endpoint for gRPC: it serves http://10.0.0.1:80";
        assert_eq!(left_out(read(r#"["http://10.0.0.1:80"]"#)), reason);
        assert_eq!(read("[]"), Ok(super::Reading::default()));
        assert_eq!(read("null"), Ok(super::Reading::default()));
        assert_eq!(read("7"), Err(RejectReason::Field("endpoints")));
        let bad = read(r#"["http://10.0.0.1:80","grpc://10.0.0.1"]"#).unwrap_err();
        assert!(bad.to_string().contains("no port"), "{bad}");
    }

    #[test]
    fn a_value_of_another_name_is_not_shown() {
        let value = r#"{"id":"i","name":"ab","endpoints":["grpc://10.0.0.1:80"]}"#;
        let error = read_at("kratos", "b", "b/1", value).unwrap_err();
        assert_eq!(error, RejectReason::OtherService("ab".to_owned()));
    }
}
