//! The keys of `[[register]]`.

use crate::config::{
    register::Register,
    table::table,
    text::{Format, HealthKind, PlainText, Positive, SourceName, Ttl},
    value::{Count, Metadata},
};
use crate::model::{Address, ServiceName};

table! {
    /// An instance of a service beside this proxy, to be put into the registry of a source while it
    /// is healthy; one table for each.
    struct RawRegister {
        /// Name in metrics, in reports and behind PUT /registrations/; unique. Default: the service.
        name: SourceName,
        /// Service that it is an instance of. Required.
        service: ServiceName,
        /// Address that others dial. Required.
        address: Address,
        /// Source of kind "etcd" whose registry it is put into. Default "main".
        source: SourceName,
        /// How the record is written, any but "auto". Default: the `format` of the source.
        format: Format,
        /// Name of the instance, which many formats have in their keys; two hosts must not share
        /// it. Default: `id` of [node].
        id: PlainText,
        /// Share of traffic. Default 100.
        weight: Count<0, { Register::MAX_WEIGHT }>,
        /// Version of the software. Default: none.
        version: PlainText,
        /// Failure domain. Default: `zone` of [node].
        zone: PlainText,
        /// Everything else that others may select by. Default: nothing.
        metadata: Metadata,
        /// How long the registration outlives this process when that dies. It is renewed each
        /// third of it. Default 15 s.
        ttl: Ttl,
        /// When it is healthy.
        health: RawRegisterHealth,
    }
}

table! {
    /// When an instance is healthy, and so registered: not before `healthy_after` probes in a row
    /// have succeeded, and not after `unhealthy_after` in a row have failed. Until it has been
    /// healthy once, it is probed each second.
    struct RawRegisterHealth {
        /// How it is asked. "grpc": grpc.health.v1.Health/Check says SERVING. "tcp": it takes a
        /// connection. "http": GET answers 2xx. "exec": a command exits with 0. "none": not at all,
        /// it counts as healthy. Default "grpc".
        kind: HealthKind,
        /// What is asked. grpc: host:port, or host:port/SERVICE for one service of the server
        /// instead of the server as a whole. tcp: host:port. http: a URL. exec: a command for
        /// /bin/sh, killed with its children after `timeout`. Default: `address`; http and exec
        /// have none.
        target: PlainText,
        /// Between two probes; 10 % more or less. Default 5 s.
        interval: Positive,
        /// Longest time that a probe may take. Default 1 s.
        timeout: Positive,
        /// Probes in a row that must succeed. Default 1.
        healthy_after: Count<1, 1000>,
        /// Probes in a row that must fail. Default 3.
        unhealthy_after: Count<1, 1000>,
    }
}
