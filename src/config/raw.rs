//! The file as it is written: its tables, their keys and what each is for.
//!
//! The one definition of the configuration. The doc comment of a key is what users read in
//! `config/pillion.toml` and `docs/configuration.md`; its type says what may stand there. To add a
//! key: write it here, check it in [`super::check`], and say in [`mod@super::effective`] how settings
//! are written back. Defaults are those of [`super::Settings`].

mod eject;
mod listener_limits;
mod register;
mod route;
mod tls;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use toml::Spanned;

pub(super) use eject::{RawEject, RawHealth};
pub(super) use listener_limits::RawListenerLimits;
pub(super) use register::{RawRegister, RawRegisterHealth};
pub(super) use route::{RawBranch, RawFault, RawHeaderChanges, RawRespond, RawRoute};
pub(super) use tls::{RawListenerTls, RawTls};

use super::{
    HashOn,
    etcd_url::EtcdUrl,
    limits::RateBy,
    retry::RetryCode,
    settings::{
        AccessLog, Balance, Connection, EmptyPolicy, Mode, Ready, SocketMode, SocketPath,
        ZonePreference,
    },
    table::{Shape, TableDef, table},
    text::{
        AccountName, Brake, Format, HeaderText, HostName, HostTimeout, Kind, Method, Net,
        PlainText, Positive, Size, SourceName,
    },
    value::{Count, Share},
};
use crate::model::{Selectors, ServiceName};

table! {
    /// Configuration of pillion, a per-host proxy for gRPC services registered in etcd.
    ///
    /// Every key is here with its default, so the empty file means the same. Durations are strings
    /// such as "250ms", "30s" and "5m". `pillion check -c FILE` says what is wrong with a file, and
    /// `pillion config -c FILE` what it comes to; flags and PILLION_* variables win over it. SIGHUP,
    /// or a change of the file, reloads it; a file with a mistake changes nothing.
    struct RawFile {
        /// Data-plane threads; 0 means one for each core. Read at start only.
        workers: Count<0, 1024>,
        /// Longest time that a stop waits for calls in flight.
        drain_timeout: Duration,
        /// Time between taking registrations out of the registry and refusing calls, when the
        /// process stops: so long others may take to see it.
        drain_propagation: Duration,
        /// Calls that may be in flight through this proxy; 0 for any number. More are refused at once.
        max_in_flight: Count<0, 1_000_000>,
        /// Memory that the process may use; less where its control group has less. From 80 % on new calls
        /// are refused, from 88 % on new connections, too, and from 94 % on those that hold most are ended.
        max_memory: Size<16_777_216, 1_099_511_627_776>,
        /// One line for each call on stdout: none, a JSON object, or key=value pairs.
        access_log: AccessLog,
        /// Folder that keeps what is known of etcd, so that it is served after a start without etcd;
        /// empty for none. Read at start only.
        state_dir: PathBuf,
        /// User that the process becomes once it listens, where it is started as root: a name, or a number.
        /// It must be able to read every file that is named here, for they are read again. Empty: it
        /// stays who it is; "root", without a warning. This and the next one are read at start only.
        user: AccountName,
        /// Group instead of the user's own.
        group: AccountName,
        /// Whom this proxy speaks for.
        node: RawNode,
        /// Where applications connect.
        listener: Vec<Spanned<RawListener>>,
        /// Where operators and Prometheus connect.
        admin: RawAdmin,
        /// Where endpoints are learned from.
        source: Vec<Spanned<RawSource>>,
        /// What is put into a registry.
        register: Vec<Spanned<RawRegister>>,
        /// How calls of every service are made.
        defaults: RawPolicy,
        /// Services that differ from [defaults].
        service: BTreeMap<ServiceName, RawPolicy>,
        /// Rules for calls, by authority, path and headers.
        route: Vec<Spanned<RawRoute>>,
        /// Live policy in etcd, beside what the file says.
        policy: RawLivePolicy,
    }
}

table! {
    /// Whom this proxy speaks for. What is not empty is sent upstream: `service` as pillion-caller,
    /// `cluster`, `zone` and `env` as pillion-caller-cluster, -zone and -env.
    struct RawNode {
        /// Service that the application beside this proxy is.
        service: HeaderText,
        /// Name of this instance. Empty: the host name.
        id: HeaderText,
        /// Cluster that it belongs to.
        cluster: HeaderText,
        /// Failure domain that it runs in.
        zone: HeaderText,
        /// Environment, such as "prod".
        env: HeaderText,
    }
}

table! {
    /// Where applications connect; one table for each address. Read at start only.
    struct RawListener {
        /// Address to listen on. Port 0 lets the system choose.
        address: SocketPath,
        /// Permissions of a Unix socket: whoever may write to it may connect.
        mode: SocketMode,
        /// TLS towards applications.
        tls: RawListenerTls,
        /// What applications may do.
        limits: RawListenerLimits,
    }
}

table! {
    /// Where operators and Prometheus connect: /metrics, /ready, /services and the rest. Whoever reaches
    /// it may drain this proxy, so it is on a loopback address or a Unix socket, or needs a token. Read
    /// at start only.
    struct RawAdmin {
        /// Address to listen on. Port 0 lets the system choose. One that is not of loopback needs
        /// `token_file`, or `client_ca` in [admin.tls].
        address: SocketPath,
        /// Permissions of a Unix socket: whoever may write to it may connect.
        mode: SocketMode,
        /// File that holds a token, 16 characters or more: requests without `authorization: Bearer
        /// TOKEN` then learn from /live and /ready only whether it is. Read for each request.
        token_file: PathBuf,
        /// Names that `host` of a request may have beside those without a dot, such as localhost, loopback
        /// addresses and the address itself; with a token or TLS it may have any.
        hosts: Vec<HostName>,
        /// How it speaks TLS.
        tls: RawListenerTls,
    }
}

table! {
    /// Where endpoints are learned from; one table for each place. Endpoints of one service are
    /// merged by address; for an address that several sources know, the first source wins.
    struct RawSource {
        /// Name in metrics, reports and selectors; unique. Default "main", of a file "file".
        name: SourceName,
        /// "etcd": records under a prefix of etcd. "file": a TOML file.
        kind: Kind,
        /// Client URLs of the etcd members, at least one.
        endpoints: Vec<EtcdUrl>,
        /// Start of the registry's keys, such as "/microservices". Empty: where the framework of
        /// `format` itself puts them, or all keys.
        prefix: PlainText,
        /// How frameworks wrote the records. "auto" tells it from each record, where it can be told.
        format: Format,
        /// "lazy": a service is listed and watched from its first call on, and dropped when idle.
        /// "eager": the whole prefix, from start on.
        mode: Mode,
        /// What a list that etcd confirms to be empty means. "serve": the service has no endpoint.
        /// "keep": the last endpoints stay.
        empty: EmptyPolicy,
        /// When more than this share of a service's endpoints, and at least 3, vanish within 10 s,
        /// they are not believed to be gone: each is dialled, and only those that do not answer go at
        /// once. "off": all go.
        brake: Brake,
        /// How long an endpoint that vanished like that, and answers, is kept.
        brake_hold: Duration,
        /// User name towards etcd; empty for none. Needs `password_file`.
        username: PlainText,
        /// File that holds the password of `username`.
        password_file: PathBuf,
        /// Certificates (PEM) of the authorities that sign for the members, for https endpoints.
        /// Empty: those that the system trusts. This and the next two, and the password, are read
        /// again when they change.
        ca_file: PathBuf,
        /// Client certificate (PEM); empty for none. Needs `key_file`.
        cert_file: PathBuf,
        /// Key (PEM) of `cert_file`.
        key_file: PathBuf,
        /// Networks that endpoints may be in, such as ["10.0.0.0/8"]; empty for any. A record with an
        /// address elsewhere is rejected. Link-local, multicast and unspecified addresses, and those at
        /// which clouds keep credentials, are endpoints only where they are allowed by themselves:
        /// ["0.0.0.0/0", "169.254.0.0/16"]. Where this proxy itself listens is none in any case.
        allow: Vec<Net>,
        /// Networks that endpoints may not be in, whatever `allow` says.
        deny: Vec<Net>,
        /// File of [[endpoint]] tables with service, address, weight, id, version, zone, tls and
        /// metadata. It is read again when it changes.
        path: PathBuf,
    }
}

table! {
    /// How calls are made: [defaults] for every service, [service."NAME"] for one, [[route]] for
    /// some. A key that a route does not have is taken from its service, and one that a service does
    /// not have from [defaults].
    struct RawPolicy {
        /// How an endpoint is chosen. "weighted_random": by weight alone. "round_robin": in turn,
        /// by weight, evenly spread. "p2c": two by weight, then the one with fewer calls in flight
        /// for its weight. "peak_ewma": two by weight, then the one with less latency times calls in
        /// flight. "ring_hash", "maglev": calls with the same key, see `hash_on`, go to the same
        /// endpoint.
        balance: Balance,
        /// Endpoints that may be chosen; empty for all.
        filter: Arc<Selectors>,
        /// Where the connection of a call comes from. "fresh": one connection for each call.
        /// "warm": the same, connected ahead. "pooled": shared connections.
        connection: Connection,
        /// When an endpoint counts as connected. "settings": once its HTTP/2 SETTINGS arrived.
        /// "tcp": once TCP is established, and TLS.
        ready: Ready,
        /// Longest time that one attempt may take to connect: TCP, TLS and `ready`
        /// together.
        connect_timeout: Positive,
        /// How long the host of an endpoint may give no sign of life, below HTTP/2, while a call waits
        /// for it. One that has vanished is so found out by calls without a time limit, too: after
        /// this time where something was sent, after a quarter more where all was quiet.
        host_timeout: HostTimeout,
        /// Attempts of one call at most, the first one included; each on an endpoint that this call
        /// has not tried yet.
        attempts: Count<1, 1000>,
        /// Longest time that a call may take; "0s" for no limit. A shorter grpc-timeout of the
        /// caller wins.
        timeout: Duration,
        /// Time after which an answer that has not begun makes a call a slow one, which GET /calls
        /// shows; "0s" for never.
        slow_call: Duration,
        /// "prefer": endpoints in the zone of this proxy go first, while they can carry their share of
        /// the calls. Needs `zone` in [node].
        zone_preference: ZonePreference,
        /// Time in which an endpoint that joins a service comes to its whole weight, from a tenth of
        /// it; "0s" for at once.
        slow_start: Duration,
        /// Endpoints that this proxy uses at most, of a service that has many; 0 for all. Each proxy
        /// has its own, by `id` in [node].
        subset: Count<0, 1_000_000>,
        /// What "ring_hash" and "maglev" take the key of a call from: a header, the path, a cookie, or
        /// the address of the application. A call without a key is balanced as by "p2c".
        hash_on: HashOn,
        /// Time in which "peak_ewma" forgets a latency, to about a third of it.
        peak_ewma_decay: Positive,
        /// Share of the endpoints that must be well; where fewer are, calls go to those that are ejected
        /// or unhealthy, too: the few that are left could not carry all of them. 0.0 for only where
        /// none is well.
        panic_threshold: Share,
        /// How many calls are let through.
        limits: RawLimits,
        /// When a call is tried again that an endpoint may have worked on.
        retry: RawRetry,
        /// When endpoints are left out for how their calls ended.
        eject: RawEject,
        /// How endpoints are asked whether they are well.
        health: RawHealth,
        /// TLS towards endpoints.
        tls: RawTls,
    }
}

table! {
    /// How many calls of a service are let through, by all workers together. A call beyond a limit
    /// is refused at once with RESOURCE_EXHAUSTED and the time after which to try again; none waits.
    struct RawLimits {
        /// Calls of the service in flight, from their head to the last byte of their answer; 0 for
        /// any number.
        max_in_flight: Count<0, 1_000_000>,
        /// Calls in flight on one endpoint; 0 for any number. An endpoint that has as many is passed
        /// over; when all have, the call is refused.
        max_in_flight_per_endpoint: Count<0, 1_000_000>,
        /// Calls a second; 0 for any number.
        rate: Count<0, 1_000_000>,
        /// Calls that may come at once after a pause; 0 for as many as `rate`.
        burst: Count<0, 1_000_000>,
        /// Which calls share one rate: those of the "service", those of one "method", or those with
        /// the same value of a header, such as "header:x-tenant".
        rate_by: RateBy,
        /// Whether the calls that wait for the first byte of their answer are kept to a number that
        /// follows the service's latency: fewer when it rises, more when it falls.
        adaptive: bool,
    }
}

table! {
    /// When a gRPC call is tried again beyond what is always: where no endpoint can have worked on it.
    /// Each attempt is on an endpoint that the call has not tried, `attempts` in all; none follows once
    /// a message of the answer has gone to the caller, once more than 64 KiB of the call have gone out,
    /// or where the call is itself a retry (grpc-previous-rpc-attempts).
    struct RawRetry {
        /// gRPC statuses after which a call is tried again, such as ["unavailable"]; empty for none.
        /// The head of an answer is then held back until its first message or its status is there.
        on: Vec<RetryCode>,
        /// Longest time from sending an attempt to the beginning of its answer: one that takes longer
        /// is ended, and the call is tried again; "0s" for no limit.
        per_try_timeout: Duration,
        /// Wait before the second attempt, at least the half of it at random; doubled for each further
        /// one. A grpc-retry-pushback-ms of the endpoint wins.
        backoff: Duration,
        /// Longest such wait.
        backoff_max: Duration,
        /// Further attempts of the service at most, as a share of its calls in the last 10 seconds, by
        /// all workers together.
        budget: Share,
        /// Further attempts a second that are made in any case.
        budget_min_per_second: Count<0, 1_000_000>,
        /// Time without an answer after which a second attempt begins beside the first, and so on up to
        /// `attempts`; the first good answer wins, the others are cancelled. "0s" for never.
        hedge_after: Duration,
        /// Paths of the methods that are hedged, such as ["/orders.v1.Orders/Get"]: only those that
        /// may be done twice.
        hedge_methods: Vec<Method>,
    }
}

table! {
    /// Live policy in etcd: what is written there acts on the next call of every proxy that reads it.
    /// The keys are PREFIX/service/NAME, with keys of [service.NAME], which win over those of the
    /// file, and PREFIX/route/ID, with those of a [[route]]; routes are ordered by ID and go before
    /// those of the file. Values are TOML or JSON. One that is wrong changes nothing. Without this
    /// table, nothing is read.
    struct RawLivePolicy {
        /// Name of the etcd source whose etcd it is. Default: the first one.
        source: SourceName,
        /// Start of the keys. Default "/pillion/policy".
        prefix: PlainText,
    }
}

/// All tables and keys of the file, for documentation. Of what is about endpoints, and not about
/// calls, a route reads the keys only to say where they belong.
pub fn definition() -> TableDef {
    let mut file = RawFile::definition();
    for key in file.keys.iter_mut().filter(|key| key.name == "route") {
        if let Shape::Tables(route) = &mut key.shape {
            for policy in &mut route.includes {
                policy.keys.retain(|key| !["eject", "health"].contains(&key.name));
            }
        }
    }
    file
}
