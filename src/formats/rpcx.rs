//! `rpcx`: which is only read, for servers that answer gRPC on their port, too.
//!
//! Key `/rpcx_test/<Service>/tcp@<address>`; value a query such as `weight=7&group=test&calls=1.00`.
//! What the server measures of itself is in there as well and is left out: it is put again every
//! minute or so. `state=inactive` takes an instance out of use.

use crate::model::{Record, ServiceName};

use super::{Format, Place, Places, Reading, RecordKey, RejectReason, host, labels, place};

#[derive(Debug)]
pub(super) struct Rpcx;

/// What servers measure of themselves.
const MEASURED: [&str; 3] = ["calls", "connections", "tps"];
/// Weight of an instance that names none, as rpcx clients have it.
const DEFAULT_WEIGHT: u32 = 1;

impl Format for Rpcx {
    fn name(&self) -> &'static str {
        "rpcx"
    }

    fn default_root(&self) -> &'static str {
        "/rpcx_test"
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        place::one_segment(root, service)
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        Place::of_two_segments(path)
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let (network, address) = key.instance.split_once('@').unwrap_or(("tcp", key.instance));
        if !["tcp", "tcp4", "tcp6"].contains(&network) {
            return Err(RejectReason::NotGrpc(format!("it listens on network {network:?}")));
        }
        let mut record = Record::new(address.parse()?, self.name());
        record.weight = DEFAULT_WEIGHT;
        for (key, value) in host::pairs(value) {
            if !MEASURED.contains(&&*key) {
                labels::add(&mut record, &key, &value);
            }
        }
        if record.metadata.get("state").is_some_and(|state| state == "inactive") {
            labels::forbid(&mut record, "state is inactive");
        }
        Ok(record.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{left_out, read_at};

    fn read(instance: &str, value: &str) -> Result<Reading, RejectReason> {
        read_at("rpcx", "Arith", &format!("Arith/{instance}"), value)
    }

    #[test]
    fn what_a_server_measures_is_no_change() {
        let busy = read("tcp@10.0.0.1:1", "calls=9.1&connections=2&tps=3&group=g&zone=z").unwrap();
        let idle = read("tcp@10.0.0.1:1", "calls=0.0&connections=0&zone=z&group=g").unwrap();
        assert_eq!(busy, idle);
        assert_eq!((busy.records[0].weight, &*busy.records[0].zone), (1, "z"));
    }

    #[test]
    fn an_inactive_instance_is_kept_out_of_picks_and_one_on_quic_is_none() {
        let inactive = read("tcp@10.0.0.1:1", "state=inactive").unwrap();
        assert_eq!(inactive.records[0].metadata["state"], "forbidden");
        let reason = left_out(read("quic@10.0.0.1:1", ""));
        assert_eq!(reason, "not an endpoint for gRPC: it listens on network \"quic\"");
    }
}
