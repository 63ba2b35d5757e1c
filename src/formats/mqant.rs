//! `mqant`: go-micro's old records, from game servers that mostly listen on a message bus.
//!
//! Key `/mqant-registry/<name>/<name>@<id>`; value as [`super::go_micro`], with `port` apart. The
//! address is that of a NATS inbox, port 0, unless the server advertises one of TCP. By convention
//! metadata has `weight`, and `state`, of which only `alive` or none can be called.

use crate::model::ServiceName;

use super::{Format, Places, Reading, RecordKey, RejectReason, go_micro, json, labels};

#[derive(Debug)]
pub(super) struct Mqant;

impl Format for Mqant {
    fn name(&self) -> &'static str {
        "mqant"
    }

    fn default_root(&self) -> &'static str {
        "/mqant-registry"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        go_micro::GoMicro.prefix(root, service)
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        go_micro::GoMicro.places(path)
    }

    fn named_by(&self, path: &str, value: &str) -> Option<ServiceName> {
        go_micro::named_by(path, value)
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let object = json::object(value)?;
        go_micro::nodes(key, &object, |node| {
            let inbox = json::text(node, "address");
            if inbox.starts_with("_INBOX.") {
                return Err(RejectReason::NotGrpc(format!("it listens on the NATS inbox {inbox}")));
            }
            let mut record =
                go_micro::record(self.name(), &object, node, go_micro::address(node)?)?;
            if let Some(state) = record.metadata.get("state")
                && !["", "alive"].contains(&&**state)
            {
                let reason = format!("state is {state}");
                labels::forbid(&mut record, &reason);
            }
            Ok(record)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::tests::{left_out, read_at};

    fn read(node: &str) -> Result<super::Reading, super::RejectReason> {
        let value = format!(r#"{{"name":"gate","version":"1","nodes":[{node}]}}"#);
        read_at("mqant", "gate", "gate/gate@1", &value)
    }

    #[test]
    fn a_message_bus_cannot_be_dialled() {
        let inbox = read(r#"{"id":"gate@1","address":"_INBOX.k","port":0,"metadata":null}"#);
        assert_eq!(
            left_out(inbox),
            "not an endpoint for gRPC: it listens on the NATS inbox _INBOX.k"
        );
        let other = read(r#"{"id":"gate@1","address":"inbox","port":0,"metadata":null}"#);
        assert!(other.unwrap_err().to_string().contains("no port"));
    }

    #[test]
    fn a_state_other_than_none_or_alive_is_kept_out_of_picks() {
        for (state, forbidden) in
            [("", false), ("alive", false), ("forbidden", true), ("full", true)]
        {
            let node = format!(
                r#"{{"id":"g","address":"10.0.0.1","port":80,"metadata":{{"state":"{state}"}}}}"#
            );
            let metadata = read(&node).unwrap().records.remove(0).metadata;
            assert_eq!(metadata["state"] == "forbidden", forbidden, "{state}");
            let reason = forbidden.then(|| format!("state is {state}"));
            assert_eq!(metadata.get("state_reason"), reason.as_ref());
        }
    }
}
