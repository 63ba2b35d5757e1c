//! The effective configuration: settings written back as the file that would say the same.
//!
//! `pillion config` prints it, `GET /config` answers it. It holds no secret, because no key of the
//! file does: passwords and keys are in files of their own, which are only named.

mod eject;
mod listener;
mod register;
mod route;
mod tls;

use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;

use super::{
    etcd_url::EtcdUrl,
    limits::Limits,
    raw::{
        RawAdmin, RawEject, RawFile, RawHealth, RawLimits, RawListener, RawListenerTls,
        RawLivePolicy, RawNode, RawPolicy, RawRegister, RawRetry, RawRoute, RawSource, RawTls,
    },
    render::render,
    retry::Retry,
    settings::{AdminSettings, EtcdSource, LivePolicy, Node, Policy, Settings, Source, SourceKind},
    table::Key,
    text::{
        AccountName, Brake, Format, HeaderText, HostName, HostTimeout, Kind, Method, Net,
        PlainText, Positive, Size, SourceName,
    },
    value::{Count, Share, Value},
};

/// `settings` as a file. Loading the text gives equal settings.
pub fn effective(settings: &Settings) -> String {
    render(&RawFile::from(settings))
}

/// `settings` as JSON, of the shape and spelling of the file.
pub fn effective_json(settings: &Settings) -> serde_json::Value {
    serde_json::to_value(RawFile::from(settings).write())
        .expect("tables, arrays, strings and whole numbers have a form in JSON")
}

impl From<&Settings> for RawFile {
    fn from(settings: &Settings) -> Self {
        let services = settings.services.iter();
        let services = services.map(|(name, policy)| (name.clone(), RawPolicy::from(&**policy)));
        Self {
            workers: Count(u32::try_from(settings.workers).unwrap_or(u32::MAX)).into(),
            drain_timeout: settings.drain_timeout.into(),
            drain_propagation: settings.drain_propagation.into(),
            max_in_flight: Count(settings.max_in_flight).into(),
            max_memory: Size(settings.max_memory).into(),
            access_log: settings.access_log.into(),
            state_dir: settings.state_dir.clone().unwrap_or_default().into(),
            user: AccountName(settings.user.clone()).into(),
            group: AccountName(settings.group.clone()).into(),
            node: RawNode::from(&settings.node).into(),
            listener: each(&settings.listeners, RawListener::from).into(),
            admin: RawAdmin::from(&settings.admin).into(),
            source: each(&settings.sources, RawSource::from).into(),
            register: each(&settings.registers, RawRegister::from).into(),
            defaults: RawPolicy::from(&*settings.defaults).into(),
            service: services.collect::<std::collections::BTreeMap<_, _>>().into(),
            route: each(&settings.routes, RawRoute::from).into(),
            policy: settings
                .live_policy
                .as_ref()
                .map(RawLivePolicy::from)
                .map_or_else(Key::default, Key::from),
        }
    }
}

/// One table for each element; there is no file that they have a place in.
fn each<'a, T, R>(elements: &'a [T], raw: impl Fn(&'a T) -> R) -> Vec<Spanned<R>> {
    elements.iter().map(|element| Spanned::new(0..0, raw(element))).collect()
}

impl From<&LivePolicy> for RawLivePolicy {
    fn from(LivePolicy { source, prefix }: &LivePolicy) -> Self {
        Self {
            source: SourceName(source.to_string()).into(),
            prefix: PlainText(prefix.clone()).into(),
        }
    }
}

impl From<&AdminSettings> for RawAdmin {
    fn from(AdminSettings { address, mode, token_file, tls, hosts }: &AdminSettings) -> Self {
        Self {
            address: address.clone().into(),
            mode: (*mode).into(),
            token_file: token_file.clone().unwrap_or_default().into(),
            hosts: hosts.iter().cloned().map(HostName).collect::<Vec<_>>().into(),
            tls: tls.as_ref().map(RawListenerTls::from).map_or_else(Key::default, Key::from),
        }
    }
}

impl From<&Node> for RawNode {
    fn from(Node { service, id, cluster, zone, env }: &Node) -> Self {
        let text = |text: &String| HeaderText(text.clone()).into();
        Self {
            service: text(service),
            id: text(id),
            cluster: text(cluster),
            zone: text(zone),
            env: text(env),
        }
    }
}

impl From<&Source> for RawSource {
    fn from(source: &Source) -> Self {
        let name = SourceName(source.name.to_string()).into();
        let nets = |nets: &[IpNet]| nets.iter().copied().map(Net).collect::<Vec<_>>().into();
        let (allow, deny) = (nets(&source.networks.allow), nets(&source.networks.deny));
        match &source.kind {
            SourceKind::Etcd(etcd) => {
                Self { name, kind: Kind::Etcd.into(), allow, deny, ..etcd.into() }
            }
            SourceKind::File(file) => Self {
                name,
                allow,
                deny,
                kind: Kind::File.into(),
                path: file.path.clone().into(),
                ..Self::default()
            },
        }
    }
}

impl From<&EtcdSource> for RawSource {
    fn from(etcd: &EtcdSource) -> Self {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into();
        let endpoints = etcd.endpoints.iter().map(|url| EtcdUrl(url.clone()));
        Self {
            endpoints: endpoints.collect::<Vec<_>>().into(),
            prefix: PlainText(etcd.prefix.clone()).into(),
            format: Format(etcd.format.clone()).into(),
            mode: etcd.mode.into(),
            empty: etcd.empty.into(),
            brake: Brake(etcd.brake).into(),
            brake_hold: etcd.brake_hold.into(),
            username: PlainText(etcd.username.clone()).into(),
            password_file: path(&etcd.password_file),
            ca_file: path(&etcd.ca_file),
            cert_file: path(&etcd.cert_file),
            key_file: path(&etcd.key_file),
            ..Self::default()
        }
    }
}

impl From<&Policy> for RawPolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            balance: policy.balance.into(),
            filter: policy.filter.clone().into(),
            connection: policy.connection.into(),
            ready: policy.ready.into(),
            connect_timeout: Positive(policy.connect_timeout).into(),
            host_timeout: HostTimeout(policy.host_timeout).into(),
            attempts: Count(policy.attempts).into(),
            timeout: policy.timeout.unwrap_or_default().into(),
            slow_call: policy.slow_call.unwrap_or_default().into(),
            zone_preference: policy.zone_preference.into(),
            slow_start: policy.slow_start.into(),
            subset: Count(policy.subset).into(),
            hash_on: policy.hash_on.clone().into(),
            peak_ewma_decay: Positive(policy.peak_ewma_decay).into(),
            retry: RawRetry::from(&policy.retry).into(),
            panic_threshold: Share(policy.panic_threshold).into(),
            limits: RawLimits::from(&policy.limits.as_deref().cloned().unwrap_or_default()).into(),
            eject: RawEject::from(&*policy.eject).into(),
            health: RawHealth::from(&*policy.health).into(),
            tls: RawTls::from(&*policy.tls).into(),
        }
    }
}

impl From<&Limits> for RawLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            max_in_flight: Count(limits.max_in_flight).into(),
            max_in_flight_per_endpoint: Count(limits.max_in_flight_per_endpoint).into(),
            rate: Count(limits.rate).into(),
            burst: Count(limits.burst).into(),
            rate_by: limits.rate_by.clone().into(),
            adaptive: limits.adaptive.into(),
        }
    }
}

impl From<&Retry> for RawRetry {
    fn from(retry: &Retry) -> Self {
        let methods = retry.hedge_methods.iter().cloned().map(Method);
        Self {
            on: retry.on.codes().collect::<Vec<_>>().into(),
            per_try_timeout: retry.per_try_timeout.unwrap_or_default().into(),
            backoff: retry.backoff.into(),
            backoff_max: retry.backoff_max.into(),
            budget: Share(retry.budget).into(),
            budget_min_per_second: Count(retry.budget_min_per_second).into(),
            hedge_after: retry.hedge_after.unwrap_or_default().into(),
            hedge_methods: methods.collect::<Vec<_>>().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    #[test]
    fn the_effective_text_loads_to_equal_settings() {
        let text = r#"
            workers = 2
            drain_timeout = "1m 30s"
            drain_propagation = "2s"
            max_memory = "1GiB"
            access_log = "json"
            state_dir = "/var/lib/pillion"
            node = { service = "shop", id = "shop-1", cluster = "c", zone = "z", env = "prod" }
            admin.address = "[::1]:0"
            admin.tls = { cert = "a.pem", key = "a.key", client_ca = "ops.pem", allow = ["spiffe://prod/*"] }
            [[listener]]
            address = "127.0.0.1:0"
            [[listener]]
            address = "[::]:8443"
            [listener.tls]
            cert = "c.pem"
            key = "/k.pem"
            client_ca = "ca.pem"
            allow = ["spiffe://prod/*", "a"]
            min_version = "1.2"
            [[listener]]
            address = "unix:/run/pillion.sock"
            [listener.limits]
            max_connections = 7
            max_connections_per_peer = 0
            max_streams = 100
            max_header_size = "16KiB"
            max_headers = 100
            header_timeout = "5s"
            idle_timeout = "0s"
            max_age = "1h"
            stall_timeout = "30s"
            max_buffered = "1MiB"
            max_resets = 50
            max_odd_frames = 0
            [[source]]
            name = "a"
            endpoints = ["https://a:2379", "https://b:2379"]
            prefix = "/micro\"services"
            format = "koala"
            mode = "eager"
            empty = "keep"
            brake = "off"
            brake_hold = "10m"
            username = "root"
            password_file = "password"
            ca_file = "/etc/ca.pem"
            cert_file = "cert.pem"
            key_file = "key.pem"
            [[source]]
            kind = "file"
            path = "services.toml"
            [[register]]
            name = "pay-a"
            service = "pay"
            address = "10.0.0.5:9000"
            source = "a"
            format = "go-zero"
            id = "pay-1"
            weight = 50
            version = "v1"
            zone = "z"
            metadata = { gpu = true, "a.b" = 1, c = "x\"y" }
            ttl = "10s"
            [register.health]
            kind = "exec"
            target = "true; \"x\""
            interval = "2s"
            timeout = "500ms"
            healthy_after = 2
            unhealthy_after = 5
            [[register]]
            service = "shop"
            address = "shop.internal:9000"
            source = "a"
            health = { kind = "grpc", target = "127.0.0.1:9000/shop.Shop" }
            [[register]]
            service = "web"
            address = "[::1]:80"
            source = "a"
            format = "etcd-naming"
            health = { kind = "http", target = "http://127.0.0.1:80/health?a=b" }
            [defaults]
            balance = "round_robin"
            filter = "version=v2;version=v1;"
            timeout = "2s"
            slow_call = "0s"
            limits = { max_in_flight = 100, rate = 50, burst = 5, rate_by = "header:x-tenant" }
            [service."it's~an.order"]
            connection = "pooled"
            timeout = "0s"
            filter = ""
            [service.warm]
            connection = "warm"
            ready = "tcp"
            connect_timeout = "1ms"
            host_timeout = "90s"
            attempts = 1
            limits = { adaptive = true, max_in_flight_per_endpoint = 7, rate_by = "method" }
            [service.often]
            attempts = 4
            [service.often.retry]
            on = ["unavailable", "RESOURCE_EXHAUSTED"]
            per_try_timeout = "100ms"
            backoff = "10ms"
            backoff_max = "1s"
            budget = 0.07
            budget_min_per_second = 0
            hedge_after = "20ms"
            hedge_methods = ["/orders.v1.Orders/Get"]
            [service.keyed]
            balance = "maglev"
            zone_preference = "prefer"
            slow_start = "30s"
            subset = 20
            hash_on = "cookie:session"
            peak_ewma_decay = "600ms"
            [service.watched]
            panic_threshold = 0.25
            [service.watched.eject]
            consecutive_local = 0
            consecutive_errors = 3
            failure_rate = 0.1
            wrong_service = false
            interval = "5s"
            base = "1s"
            max = "1m"
            max_share = 1.0
            [service.watched.health]
            kind = "grpc"
            interval = "1s"
            timeout = "200ms"
            healthy_after = 2
            unhealthy_after = 1
            [service.safe.tls]
            mode = "on"
            ca = "ca.pem"
            cert = "me.pem"
            key = "me.key"
            server_name = "safe.internal"
            verify = ["spiffe://prod/ns/safe/*"]
            min_version = "1.2"
            [policy]
            prefix = "/policy/"
            [[route]]
            authority = "*.internal"
            path_prefix = "/orders.v1."
            service = "orders"
            filter = ""
            [[route]]
            method = "/orders.v1.Orders/List"
            headers = { X-User = "test", x-canary = "*", x-tag = "a b*" }
            service = "orders"
            timeout = "1s"
            attempts = 1
            split_on = "cookie:Session"
            split = [{ filter = "version=v2", weight = 10 }, { service = "next", weight = 0 }]
            fault = { delay = "100ms", delay_percent = 10, abort = "unavailable", abort_percent = 0.5 }
            [route.request_headers]
            remove = ["x-debug"]
            set = { X-Env = "canary" }
            add = { x-tag = "" }
            [[route]]
            authority = "closed"
            respond = { grpc_status = "NOT_FOUND", http_status = 410, message = "gone" }
            [[route]]
            authority = "*"
            service = "rest"
            fault.abort = "ABORTED"
            [[register]]
            service = "open~user"
            address = "10.0.0.5:1"
            source = "a"
            format = "etcd-naming"
        "#;
        let settings = parse(text, Path::new("/etc/pillion")).unwrap();
        let written = effective(&settings);
        assert_eq!(parse(&written, Path::new("/elsewhere")), Ok(settings), "{written}");
    }

    #[test]
    fn the_json_has_the_shape_of_the_file() {
        let json = effective_json(&Settings::default());
        assert_eq!(json["listener"][0]["address"], "127.0.0.1:4140");
        assert_eq!(json["defaults"]["attempts"], 3);
        assert_eq!(json["service"], serde_json::json!({}));
    }
}
