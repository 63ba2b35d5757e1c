//! `kratos-v1`: records of bilibili's kratos 1, which is only read.
//!
//! Key `/kratos_etcd/<appid>/<hostname>`; value `{"region":"sh","zone":"sh001","env":"prod","appid":
//! "demo.service","hostname":"host-1","addrs":["grpc://10.4.1.1:9000"],"version":"111",
//! "latest_timestamp":1584000000,"metadata":{"weight":"10"},"status":1}`. It is put again every 30
//! seconds with another timestamp, which is therefore left out.

use serde_json::{Map, Value};

use super::{Format, Reading, RecordKey, RejectReason, json, kratos, labels};

#[derive(Debug)]
pub(super) struct KratosV1;

impl Format for KratosV1 {
    fn name(&self) -> &'static str {
        "kratos-v1"
    }

    fn default_root(&self) -> &'static str {
        "/kratos_etcd"
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        kratos::read(key, &json::object(value)?)
    }
}

pub(super) fn read(
    key: &RecordKey<'_>,
    object: &Map<String, Value>,
) -> Result<Reading, RejectReason> {
    let name = json::text(object, "appid");
    if !key.is_of(name) {
        return Err(RejectReason::OtherService(name.to_owned()));
    }
    let Some(mut record) = kratos::endpoint(KratosV1.name(), object, "addrs")? else {
        return Ok(Reading::default());
    };
    json::labels(object, "metadata").for_each(|metadata| labels::take(&mut record, metadata));
    labels::fields(&mut record, object, &["region", "zone", "env", "version"]);
    let host = json::text(object, "hostname");
    (if host.is_empty() { key.instance } else { host }).clone_into(&mut record.id);
    // Most programs leave the status at 0; 1 is "up".
    match json::field(object, "status").and_then(Value::as_i64) {
        None | Some(0 | 1) => {}
        Some(status) => labels::forbid(&mut record, &format!("status is {status}")),
    }
    Ok(record.into())
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::read_at;

    fn value(status: u8, timestamp: u32) -> String {
        format!(
            r#"{{"region":"","zone":"z","env":"prod","appid":"a","hostname":"h","addrs":
            ["http://10.0.0.1:80","grpc://10.0.0.1:90"],"version":"1","latest_timestamp":{timestamp},
            "metadata":null,"status":{status}}}"#
        )
    }

    #[test]
    fn a_refresh_is_no_change() {
        let read = |timestamp| read_at("kratos-v1", "a", "a/h", &value(1, timestamp)).unwrap();
        assert_eq!(read(1), read(2));
        assert_eq!((&*read(1).records[0].zone, &*read(1).records[0].id), ("z", "h"));
    }

    #[test]
    fn a_status_other_than_none_or_up_is_kept_out_of_picks() {
        let metadata = |status, key: &str| {
            let read = read_at("kratos", "a", "a/h", &value(status, 1)).unwrap();
            read.records[0].metadata.get(key).cloned()
        };
        assert_eq!(metadata(0, "state"), None);
        assert_eq!(metadata(1, "state"), None);
        assert_eq!(metadata(2, "state").unwrap(), "forbidden");
        assert_eq!(metadata(2, "state_reason").unwrap(), "status is 2");
    }
}
