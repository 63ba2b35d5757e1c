//! `jupiter`: douyu's jupiter, which is only read.
//!
//! Key `grpc:<name>:v1:<mode>/<address>`; value `{"Op":0,"Addr":"10.14.0.1:9090","MetadataX":{"name":
//! "user-svc","weight":100,"enable":true,"healthy":true,"region":"sh","zone":"sh-1","version":"1.0",
//! "mode":"prod",..}}`. No authority can have a `:v1:` in it, so the service is `<name>`, of all modes;
//! `mode` is metadata, for selectors to choose. Keys of other schemes than `grpc` are no instances.

use serde_json::Value;

use crate::model::{Record, ServiceName};

use super::{
    Format, Place, Places, Reading, RecordKey, RejectReason, json, labels, weight::weight,
};

#[derive(Debug)]
pub(super) struct Jupiter;

const SCHEME: &str = "grpc:";
const VERSION: &str = ":v1:";

impl Format for Jupiter {
    fn name(&self) -> &'static str {
        "jupiter"
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        Some(format!("{root}{SCHEME}{}{VERSION}", service.key()))
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        let place = || {
            let (name, rest) = path.strip_prefix(SCHEME)?.split_once(VERSION)?;
            let (mode, id) = rest.split_once('/')?;
            Place::new(name, id).filter(|_| !mode.is_empty() && !id.contains('/'))
        };
        place().into_iter().collect()
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let object = json::object(value)?;
        let address = json::field(&object, "Addr").and_then(Value::as_str);
        let address = address.ok_or(RejectReason::Field("Addr"))?.parse()?;
        let mut record = Record::new(address, self.name());
        key.instance.clone_into(&mut record.id);
        for info in json::labels(&object, "MetadataX") {
            json::labels(info, "metadata").for_each(|extra| labels::take(&mut record, extra));
            let known =
                ["version", "zone", "region", "mode", "appId", "hostname", "deployment", "group"];
            labels::fields(&mut record, info, &known);
            record.weight = weight(json::field(info, "weight"));
            labels::need(&mut record, info, &["enable", "healthy"]);
        }
        Ok(record.into())
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{read_at, services_of};

    #[test]
    fn the_service_is_the_name_between_scheme_and_version() {
        assert_eq!(services_of("jupiter", "grpc:user-svc:v1:prod/10.0.0.1:1"), ["user-svc"]);
        for path in [
            "http:user-svc:v1:prod/10.0.0.1:1",
            "grpc:user-svc:v2:prod/10.0.0.1:1",
            "grpc:user-svc:v1:/10.0.0.1:1",
            "grpc:user-svc:v1:prod/a/b",
            "grpc::v1:prod/10.0.0.1:1",
        ] {
            assert!(services_of("jupiter", path).is_empty(), "{path}");
        }
    }

    #[test]
    fn what_the_metadata_says_is_kept_and_a_sick_instance_forbidden() {
        let value = r#"{"Op":0,"Addr":"10.0.0.1:1","MetadataX":{"name":"a","weight":50.4,"enable":true,
            "healthy":false,"metadata":{"gpu":"yes","weight":"7"},"zone":"z","version":"2","group":""}}"#;
        let record = read_at("jupiter", "a", "grpc:a:v1:dev/i", value).unwrap().records.remove(0);
        assert_eq!((record.weight, &*record.zone, &*record.version), (50, "z", "2"));
        let metadata: Vec<_> = record.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(metadata, ["gpu=yes", "state=forbidden", "state_reason=healthy is false"]);
        let bare = read_at("jupiter", "a", "grpc:a:v1:dev/i", r#"{"Addr":"10.0.0.1:1"}"#).unwrap();
        assert_eq!((bare.records[0].weight, &*bare.records[0].id), (100, "i"));
    }
}
