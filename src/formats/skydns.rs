//! `skydns`: the records of SkyDNS, CoreDNS and external-dns.
//!
//! Key `/skydns/` and the labels of a DNS name, reversed: `user.svc.cluster.local` has
//! `/skydns/local/cluster/svc/user/<any id>`, and as in DNS a name has all records below it, and the
//! one right there. Value `{"host":"10.12.0.3","port":50051,"weight":3,"priority":10,"ttl":60}`, of
//! which an endpoint needs host and port. Weight 0 means 100. TTL is for those who cannot watch. What
//! is written has its id as a label of DNS: any other byte of it becomes a `-`.

use serde::Serialize;
use smallvec::SmallVec;

use crate::model::{Record, ServiceName};

use super::{
    EncodeError, Format, Place, Places, Reading, RecordKey, RejectReason, Written, host, json,
    labels, place, weight::positive_or, write,
};

/// Longest label of a DNS name, in bytes (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// `msg.Service` of SkyDNS, whose fields are left out when they are empty.
#[derive(Serialize)]
struct Entry<'a> {
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    weight: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
}

#[derive(Debug)]
pub(super) struct SkyDns;

impl Format for SkyDns {
    fn name(&self) -> &'static str {
        "skydns"
    }

    fn default_root(&self) -> &'static str {
        "/skydns"
    }

    /// Without a slash at the end, for the record right there.
    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        let labels: SmallVec<[&str; 8]> = service.as_str().split('.').rev().collect();
        let has_slash = service.as_str().contains('~');
        (!has_slash && !labels.contains(&"")).then(|| format!("{root}{}", labels.join("/")))
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        let labels = place::segments(path);
        // Addresses by number, and records of a zone itself: nobody calls them by name.
        let is_zone = labels.windows(2).any(|pair| matches!(pair, ["dns", "apex" | "ns"]));
        if labels[0] == "arpa" || is_zone || labels.iter().any(|label| label.contains(['.', '~'])) {
            return Places::new();
        }
        let name = |count: usize| {
            labels[..count].iter().rev().copied().collect::<SmallVec<[&str; 8]>>().join(".")
        };
        let below = |count: usize| {
            let start: usize = labels[..count].iter().map(|label| label.len() + 1).sum();
            path.get(start..).filter(|rest| !rest.is_empty()).or_else(|| labels.last().copied())
        };
        if labels.contains(&"") {
            return Places::new();
        }
        // The folder first, then the folders around it; the name of the record itself is the last.
        let counts = (1..labels.len()).rev().chain([labels.len()]);
        counts.filter_map(|count| Place::new(&name(count), below(count)?)).collect()
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let object = json::object(value)?;
        let host = json::text(&object, "host");
        let is_mail = json::field(&object, "mail").and_then(serde_json::Value::as_bool);
        if is_mail == Some(true) || (host.is_empty() && json::raw(&object, "text").is_some()) {
            return Ok(Reading::default());
        }
        let port = json::field(&object, "port").and_then(serde_json::Value::as_u64);
        let mut record = Record::new(host::join(host, port.unwrap_or(0))?, self.name());
        key.instance.clone_into(&mut record.id);
        record.weight = positive_or(Record::DEFAULT_WEIGHT, json::field(&object, "weight"));
        labels::fields(&mut record, &object, &["priority", "group", "text"]);
        Ok(record.into())
    }

    fn encode(
        &self,
        prefix: &str,
        _service: &ServiceName,
        record: &Record,
        _lease: i64,
    ) -> Result<Written, EncodeError> {
        write::bare(self.name(), record)?;
        let text = |key| record.metadata.get(key).map_or("", String::as_str);
        let priority = match text("priority") {
            "" => None,
            priority => Some(number(priority).ok_or_else(|| {
                write::cannot(self.name(), format!("metadata priority={priority:?}, no number"))
            })?),
        };
        let (host, port) = (record.address.host(), record.address.port());
        let (text, group) = (text("text"), text("group"));
        let entry = Entry { host, port, priority, weight: record.weight, text, group };
        Ok(Written {
            key: format!("{prefix}/{}", label(&record.id)),
            value: write::go_json(&entry),
        })
    }
}

/// An id as one label of a DNS name.
pub(super) fn label(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = id.chars().map(|c| if is_plain(c) { c } else { '-' });
    let label: String = label.take(LONGEST_LABEL).collect();
    if label.is_empty() { "-".to_owned() } else { label }
}

/// A number as it is read back: without a sign or zeros in front.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{read_at, services_of};

    #[test]
    fn a_name_has_the_records_below_it_and_the_one_right_there() {
        assert_eq!(
            services_of("skydns", "local/cluster/user/i1"),
            ["user.cluster.local", "cluster.local", "local", "i1.user.cluster.local"]
        );
        for path in
            ["arpa/in-addr/10", "local/dns/apex/x", "local/dns/ns/x", "local//x", "a.b/c", "a/"]
        {
            assert!(services_of("skydns", path).is_empty(), "{path}");
        }
        let id = |service| {
            let value = r#"{"host":"10.0.0.1","port":80}"#;
            let reading = read_at("skydns", service, "local/cluster/user/i1", value).unwrap();
            reading.records[0].id.clone()
        };
        assert_eq!(id("user.cluster.local"), "i1");
        assert_eq!(id("local"), "cluster/user/i1");
        assert_eq!(id("i1.user.cluster.local"), "i1");
    }

    #[test]
    fn an_endpoint_needs_host_and_port_and_other_kinds_of_records_are_none() {
        let read = |value| read_at("skydns", "a.local", "local/a/1", value);
        let record =
            read(r#"{"host":"::1","port":80,"weight":0,"priority":10,"ttl":60,"group":"g"}"#);
        let record = record.unwrap().records.remove(0);
        assert_eq!((record.address.as_str(), record.weight), ("[::1]:80", 100));
        assert_eq!((&*record.metadata["priority"], &*record.metadata["group"]), ("10", "g"));
        assert!(read(r#"{"host":"10.0.0.1"}"#).is_err());
        for other in [r#"{"text":"v=spf1"}"#, r#"{"host":"mx","port":25,"mail":true}"#] {
            assert_eq!(read(other), Ok(Reading::default()), "{other}");
        }
    }
}
