//! `kratos`: one JSON object an instance, with a URL for each protocol that it serves.
//!
//! Key `<namespace>/<name>/<id>`; value `{"id":"1","name":"helloworld","version":"v1","metadata":{},
//! "endpoints":["http://10.0.0.1:8000","grpc://10.0.0.1:9000"]}`. As kratos clients do, the first
//! usable `grpc` endpoint is taken; TLS is `grpcs`, before kratos 2.4 `?isSecure=true`.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::model::{Record, ServiceName};

use super::{EncodeError, Format, Reading, RecordKey, RejectReason, Written, json, labels, write};

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
        self.records(key, &json::object(value)?)
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

impl Kratos {
    /// The endpoint in an object with `endpoints`.
    pub(super) fn records(
        &self,
        key: &RecordKey<'_>,
        object: &Map<String, Value>,
    ) -> Result<Reading, RejectReason> {
        let name = json::text(object, "name");
        if !key.is_of(name) {
            return Err(RejectReason::OtherService(name.to_owned()));
        }
        let urls = match json::field(object, "endpoints") {
            Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str),
            Some(_) => return Err(RejectReason::Field("endpoints")),
            None => return Ok(Reading::default()),
        };
        let mut bad = None;
        for url in urls {
            let Some((scheme @ ("grpc" | "grpcs"), rest)) = url.split_once("://") else { continue };
            let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
            match address.trim_end_matches('/').parse() {
                Ok(address) => {
                    let mut record = Record::new(address, self.name());
                    if let Some(Value::Object(metadata)) = json::field(object, "metadata") {
                        labels::take(&mut record, metadata);
                    }
                    let id = json::text(object, "id");
                    (if id.is_empty() { key.instance } else { id }).clone_into(&mut record.id);
                    json::text(object, "version").clone_into(&mut record.version);
                    record.tls = scheme == "grpcs" || query.contains("isSecure=true");
                    return Ok(record.into());
                }
                Err(error) => bad = bad.or(Some(error)),
            }
        }
        bad.map_or_else(|| Ok(Reading::default()), |error| Err(error.into()))
    }
}
