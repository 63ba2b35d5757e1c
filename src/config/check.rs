//! From the file as written to settings known to be usable.
//!
//! Here is what one value alone cannot tell: what is missing, what contradicts what, and what is
//! inherited. [`super::read`] calls it with a file whose single values are read; values that were
//! wrong have been noted already and count as absent.

mod eject;
mod files;
mod limits;
mod listener_limits;
mod register;
mod retry;
mod route;
mod tls;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

pub(super) use route::check_route;

use super::{
    problem::{OpenAdmin, Problems},
    raw::{RawFile, RawLivePolicy, RawNode, RawPolicy, RawSource},
    settings::{
        AdminSettings, EtcdSource, FileSource, Listener, LivePolicy, Node, Policy, Settings,
        SocketPath, Source, SourceKind, ZonePreference,
    },
    table::Key,
    text::{Kind, Net},
    value::Text,
};

use crate::networks::Networks;

pub(super) use files::files;
pub(super) use register::against_sources;

/// Settings of `raw`, noting what is wrong; what registrations need of sources is left to
/// [`against_sources`]. Relative paths start at `folder`.
pub(super) fn settings(raw: &RawFile, folder: &Path, problems: &mut Problems) -> Settings {
    let default = Settings::default();
    let listeners = listeners(raw, folder, problems).unwrap_or(default.listeners);
    let admin = admin(raw, folder, &listeners, problems);
    let defaults = match raw.defaults.get() {
        Some(raw) => checked(raw, &default.defaults, problems),
        None => default.defaults,
    };
    let node = raw.node.get().map_or(default.node, node);
    let services = raw.service.get().into_iter().flatten();
    for policy in raw.defaults.get().into_iter().chain(services.clone().map(|(_, policy)| policy)) {
        need_zone(policy, &node, problems);
    }
    let sources = sources(&raw.source, folder, problems).unwrap_or(default.sources);
    let routes = (1..).zip(raw.route.get().into_iter().flatten());
    Settings {
        workers: raw.workers.get().map_or(default.workers, |count| count.0 as usize),
        drain_timeout: raw.drain_timeout.get().copied().unwrap_or(default.drain_timeout),
        drain_propagation: raw
            .drain_propagation
            .get()
            .copied()
            .unwrap_or(default.drain_propagation),
        max_in_flight: raw.max_in_flight.get().map_or(default.max_in_flight, |count| count.0),
        max_memory: raw.max_memory.get().map_or(default.max_memory, |size| size.0),
        access_log: raw.access_log.get().copied().unwrap_or(default.access_log),
        state_dir: path(&raw.state_dir, folder),
        user: raw.user.text(),
        group: raw.group.text(),
        node,
        listeners,
        admin,
        live_policy: live_policy(&raw.policy, &sources, problems),
        sources,
        registers: register::registers(raw, problems),
        services: services
            .map(|(name, raw)| (name.clone(), checked(raw, &defaults, problems)))
            .collect(),
        routes: routes
            .filter_map(|(number, raw)| check_route(raw, &format!("#{number}"), problems))
            .collect(),
        defaults,
    }
}

fn live_policy(
    key: &Key<RawLivePolicy>,
    sources: &[Source],
    problems: &mut Problems,
) -> Option<LivePolicy> {
    let raw = key.get()?;
    let etcd = sources.iter().filter(|source| matches!(source.kind, SourceKind::Etcd(_)));
    let names: Vec<_> = etcd.map(|source| &source.name).collect();
    let named = raw.source.get();
    let source = match named {
        Some(name) => names.iter().find(|known| known.as_ref() == name.as_ref()),
        None => names.first(),
    };
    let prefix = raw.prefix.get().map_or(LivePolicy::DEFAULT_PREFIX, |prefix| prefix.as_ref());
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        note(
            &raw.prefix,
            "policy.prefix: allowed: a start of keys such as \"/pillion/policy\"",
            problems,
        );
    }
    if source.is_none() {
        let allowed = match names.is_empty() {
            true => "there is no source of kind \"etcd\" that it could be in".to_owned(),
            false => {
                format!("allowed: {}", crate::config::text::one_of(names.iter().map(|n| &***n)))
            }
        };
        match named {
            Some(name) => {
                let name = name.as_ref();
                note(
                    &raw.source,
                    format!("policy.source: {name:?} is no etcd source; {allowed}"),
                    problems,
                );
            }
            None => note(key, format!("policy: {allowed}"), problems),
        }
    }
    Some(LivePolicy { source: Arc::clone(source?), prefix: prefix.to_owned() })
}

fn node(raw: &RawNode) -> Node {
    Node {
        service: raw.service.text(),
        id: raw.id.text(),
        cluster: raw.cluster.text(),
        zone: raw.zone.text(),
        env: raw.env.text(),
    }
}

/// The policy of `raw`, which is a table of its own in the file.
fn checked(raw: &RawPolicy, base: &Policy, problems: &mut Problems) -> Arc<Policy> {
    let policy = policy(raw, base);
    limits::check(raw, &policy, problems);
    retry::check(raw, &policy, problems);
    eject::check(raw, &policy, problems);
    tls::check(raw, problems);
    Arc::new(policy)
}

/// The policy of `raw`, where it says nothing that of `base`.
pub(super) fn policy(raw: &RawPolicy, base: &Policy) -> Policy {
    let or_none = |limit: &Key<Duration>| limit.get().map(|t| Some(*t).filter(|t| !t.is_zero()));
    Policy {
        balance: raw.balance.get().copied().unwrap_or(base.balance),
        filter: raw.filter.get().unwrap_or(&base.filter).clone(),
        connection: raw.connection.get().copied().unwrap_or(base.connection),
        ready: raw.ready.get().copied().unwrap_or(base.ready),
        connect_timeout: raw.connect_timeout.get().map_or(base.connect_timeout, |limit| limit.0),
        host_timeout: raw.host_timeout.get().map_or(base.host_timeout, |limit| limit.0),
        attempts: raw.attempts.get().map_or(base.attempts, |count| count.0),
        timeout: or_none(&raw.timeout).unwrap_or(base.timeout),
        slow_call: or_none(&raw.slow_call).unwrap_or(base.slow_call),
        limits: match raw.limits.get() {
            Some(raw) => limits::limits(raw, base.limits.as_deref()),
            None => base.limits.clone(),
        },
        retry: match raw.retry.get() {
            Some(raw) => retry::retry(raw, &base.retry),
            None => base.retry.clone(),
        },
        panic_threshold: raw.panic_threshold.get().map_or(base.panic_threshold, |share| share.0),
        eject: match raw.eject.get() {
            Some(raw) => eject::eject(raw, &base.eject),
            None => Arc::clone(&base.eject),
        },
        health: match raw.health.get() {
            Some(raw) => eject::health(raw, &base.health),
            None => Arc::clone(&base.health),
        },
        tls: match raw.tls.get() {
            Some(raw) => tls::endpoint(raw, &base.tls),
            None => Arc::clone(&base.tls),
        },
        zone_preference: raw.zone_preference.get().copied().unwrap_or(base.zone_preference),
        slow_start: raw.slow_start.get().copied().unwrap_or(base.slow_start),
        subset: raw.subset.get().map_or(base.subset, |count| count.0),
        hash_on: raw.hash_on.get().unwrap_or(&base.hash_on).clone(),
        peak_ewma_decay: raw.peak_ewma_decay.get().map_or(base.peak_ewma_decay, |decay| decay.0),
    }
}

/// Notes where a zone is preferred and which one is not said.
fn need_zone(raw: &RawPolicy, node: &Node, problems: &mut Problems) {
    if raw.zone_preference.get() == Some(&ZonePreference::Prefer) && node.zone.is_empty() {
        let message = "zone_preference: needs the zone of this proxy; write `zone` in [node]";
        note(&raw.zone_preference, message, problems);
    }
}

/// None where the file has no listener at all.
fn listeners(raw: &RawFile, folder: &Path, problems: &mut Problems) -> Option<Vec<Listener>> {
    let tables = raw.listener.get()?;
    if tables.is_empty() {
        note(&raw.listener, "listener: at least one is needed", problems);
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for table in tables {
        let key = &table.get_ref().address;
        let Some(address) = key.get() else {
            if key.is_absent() {
                problems.note(table.span(), "listener: `address` is missing");
            }
            continue;
        };
        if is_fixed(address) && listeners.iter().any(|other| other.address == *address) {
            note(key, format!("listener.address: {address} is given twice"), problems);
        }
        let raw = table.get_ref();
        let tls = tls::listener("listener.tls", &raw.address, &raw.tls, folder, problems);
        let mode = table.get_ref().mode.get().copied().unwrap_or_default();
        let limits = table.get_ref().limits.get().map(listener_limits::limits).unwrap_or_default();
        listeners.push(Listener { address: address.clone(), mode, tls, limits: Arc::new(limits) });
    }
    Some(listeners)
}

fn admin(
    raw: &RawFile,
    folder: &Path,
    listeners: &[Listener],
    problems: &mut Problems,
) -> AdminSettings {
    let default = AdminSettings::default();
    let table = raw.admin.get();
    let key = table.map(|admin| &admin.address);
    let address = key.and_then(Key::get).cloned().unwrap_or(default.address);
    if is_fixed(&address) && listeners.iter().any(|listener| listener.address == address) {
        let span = key.and_then(Key::span).or_else(|| raw.listener.span()).unwrap_or_default();
        problems.note(span, format!("admin.address: {address} is the address of a listener"));
    }
    let hosts = table.and_then(|admin| admin.hosts.get()).into_iter().flatten();
    AdminSettings {
        address,
        mode: table.and_then(|admin| admin.mode.get()).copied().unwrap_or_default(),
        token_file: table.and_then(|admin| path(&admin.token_file, folder)),
        tls: table.and_then(|admin| {
            tls::listener("admin.tls", &admin.address, &admin.tls, folder, problems)
        }),
        hosts: hosts.map(|name| name.as_ref().to_owned()).collect(),
    }
}

/// Notes an admin address of the file that is open to other hosts; flags may have given it a token.
pub(super) fn admin_access(raw: &RawFile, settings: &Settings, problems: &mut Problems) {
    let key = raw.admin.get().map(|admin| &admin.address);
    if let Some(key) = key.filter(|key| key.get() == Some(&settings.admin.address))
        && settings.admin.is_open()
        // A token file or a table that is wrong has been noted.
        && !raw.admin.get().is_some_and(|admin| {
            matches!(admin.token_file, Key::Wrong)
                || matches!(admin.tls, Key::Wrong)
                || admin.tls.get().is_some_and(|tls| says_something(&tls.client_ca))
        })
    {
        let wrong = OpenAdmin(settings.admin.address.clone());
        note(key, format!("admin.address: {wrong}"), problems);
    }
}

/// Whether the system does not choose the port: two listeners on port 0 do not collide.
fn is_fixed(address: &SocketPath) -> bool {
    !matches!(address, SocketPath::Tcp(address) if address.port() == 0)
}

/// None where the file has no source at all.
fn sources(
    key: &Key<Vec<Spanned<RawSource>>>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Vec<Source>> {
    let tables = key.get()?;
    if tables.is_empty() {
        note(key, "source: at least one is needed", problems);
    }
    let mut sources: Vec<Source> = Vec::new();
    for table in tables {
        let source = source(table, folder, problems);
        if sources.iter().any(|other| other.name == source.name) {
            let span = table.get_ref().name.span().unwrap_or_else(|| table.span());
            let name = &source.name;
            let message = format!("source.name: {name:?} is taken; allowed: any other name");
            problems.note(span, message);
        }
        sources.push(source);
    }
    Some(sources)
}

fn source(table: &Spanned<RawSource>, folder: &Path, problems: &mut Problems) -> Source {
    let raw = table.get_ref();
    refuse_keys_of_other_kinds(raw, problems);
    let (default_name, kind) = match raw.kind.get().copied().unwrap_or_default() {
        Kind::Etcd => (Source::DEFAULT_NAME, SourceKind::Etcd(etcd(raw, folder, problems))),
        Kind::File => {
            let path = path(&raw.path, folder);
            if path.is_none() && !matches!(raw.path, Key::Wrong) {
                problems.note(table.span(), "source: `path` is missing, which names the file");
            }
            let path = path.unwrap_or_default();
            (Source::DEFAULT_FILE_NAME, SourceKind::File(FileSource { path }))
        }
    };
    let name = raw.name.get().map_or(default_name, |name| name.as_ref());
    let nets = |key: &Key<Vec<Net>>| key.get().into_iter().flatten().map(|net| net.0).collect();
    let networks = Networks::new(nets(&raw.allow), nets(&raw.deny));
    Source { networks, ..Source::new(name, kind) }
}

fn refuse_keys_of_other_kinds(raw: &RawSource, problems: &mut Problems) {
    let of_file = [("path", raw.path.span())];
    let of_etcd = [
        ("endpoints", raw.endpoints.span()),
        ("prefix", raw.prefix.span()),
        ("format", raw.format.span()),
        ("mode", raw.mode.span()),
        ("empty", raw.empty.span()),
        ("brake", raw.brake.span()),
        ("brake_hold", raw.brake_hold.span()),
        ("username", raw.username.span()),
        ("password_file", raw.password_file.span()),
        ("ca_file", raw.ca_file.span()),
        ("cert_file", raw.cert_file.span()),
        ("key_file", raw.key_file.span()),
    ];
    let (keys, message) = match (&raw.kind, raw.kind.get().copied().unwrap_or_default()) {
        // Which kind was meant is not known.
        (Key::Wrong, _) => return,
        (_, Kind::Etcd) => (&of_file[..], "only a source with kind = \"file\" has it"),
        (_, Kind::File) => (
            &of_etcd[..],
            "a source of kind \"file\" has none; allowed: name, kind, path, allow, deny",
        ),
    };
    for (name, span) in keys {
        if let Some(span) = span {
            problems.note(span.clone(), format!("source.{name}: {message}"));
        }
    }
}

fn etcd(raw: &RawSource, folder: &Path, problems: &mut Problems) -> EtcdSource {
    let default = EtcdSource::default();
    let endpoints = raw
        .endpoints
        .get()
        .map_or(default.endpoints, |urls| urls.iter().map(|url| url.as_str().to_owned()).collect());
    if endpoints.is_empty() {
        note(&raw.endpoints, "source.endpoints: at least one is needed", problems);
    }
    need_each_other(("username", &raw.username), ("password_file", &raw.password_file), problems);
    need_each_other(("cert_file", &raw.cert_file), ("key_file", &raw.key_file), problems);
    EtcdSource {
        endpoints,
        prefix: raw.prefix.text(),
        format: raw.format.get().map_or(default.format, |format| format.0.clone()),
        mode: raw.mode.get().copied().unwrap_or(default.mode),
        empty: raw.empty.get().copied().unwrap_or(default.empty),
        brake: raw.brake.get().map_or(default.brake, |brake| brake.0),
        brake_hold: raw.brake_hold.get().copied().unwrap_or(default.brake_hold),
        username: raw.username.text(),
        password_file: path(&raw.password_file, folder),
        ca_file: path(&raw.ca_file, folder),
        cert_file: path(&raw.cert_file, folder),
        key_file: path(&raw.key_file, folder),
    }
}

/// Notes that of two keys that need each other only one says something.
fn need_each_other<A: Text, B: Text>(
    (name_a, a): (&str, &Key<A>),
    (name_b, b): (&str, &Key<B>),
    problems: &mut Problems,
) {
    // One that is wrong has been noted; nothing more is known of it.
    match (says_something(a), says_something(b)) {
        (true, false) => note(a, format!("source.{name_a}: needs `{name_b}` beside it"), problems),
        (false, true) => note(b, format!("source.{name_b}: needs `{name_a}` beside it"), problems),
        _ => {}
    }
}

fn says_something<T: Text>(key: &Key<T>) -> bool {
    matches!(key, Key::Wrong) || key.get().is_some_and(|value| !value.to_text().is_empty())
}

/// The path of `key` from `folder` on; none where it is absent or empty.
fn path(key: &Key<PathBuf>, folder: &Path) -> Option<PathBuf> {
    key.get().filter(|path| !path.as_os_str().is_empty()).map(|path| folder.join(path))
}

/// Notes a mistake where the value of `key` stands.
fn note<T>(key: &Key<T>, message: impl Into<String>, problems: &mut Problems) {
    if let Some(span) = key.span() {
        problems.note(span, message);
    }
}
