//! Checks of `[[register]]`: first each table by itself, then, once flags have had their say, all of
//! them against the sources and against what their formats can say.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use toml::Spanned;

use crate::config::{
    load::host_name,
    problem::Problems,
    raw::{RawFile, RawRegister, RawRegisterHealth},
    register::{Details, HealthCheck, Probe, Register},
    settings::{EtcdSource, Node, Settings, Source, SourceKind},
    table::Key,
    text::{HealthKind, HttpUrl},
    value::Text,
};
use crate::formats::{FORMATS, Layout};
use crate::model::Address;

/// The registrations of the file, each as far as its own table tells. One that lacks something is
/// noted and left out.
pub(super) fn registers(raw: &RawFile, problems: &mut Problems) -> Vec<Register> {
    let tables = raw.register.get().into_iter().flatten();
    tables.filter_map(|table| register(table, problems)).collect()
}

fn register(table: &Spanned<RawRegister>, problems: &mut Problems) -> Option<Register> {
    let raw = table.get_ref();
    for (name, absent) in
        [("service", raw.service.is_absent()), ("address", raw.address.is_absent())]
    {
        if absent {
            problems.note(table.span(), format!("register: `{name}` is missing"));
        }
    }
    let (service, address) = (raw.service.get()?.clone(), raw.address.get()?.clone());
    let default = Details::default();
    let details = Details {
        weight: raw.weight.get().map_or(default.weight, |weight| weight.0),
        version: raw.version.text(),
        zone: raw.zone.text(),
        metadata: raw.metadata.get().map_or(default.metadata, |metadata| metadata.0.clone()),
    };
    let known = |name: &str| FORMATS.iter().copied().find(|known| *known == name);
    Some(Register {
        name: raw.name.get().map_or_else(|| service.as_str().into(), |name| (&*name.0).into()),
        source: raw.source.get().map_or(Source::DEFAULT_NAME, |name| name.as_ref()).into(),
        format: raw.format.get().and_then(|format| known(&format.0)),
        id: raw.id.text(),
        details,
        ttl: raw.ttl.get().map_or(Register::DEFAULT_TTL, |ttl| ttl.0),
        health: health(raw.health.get(), &address, table, problems)?,
        service,
        address,
    })
}

/// None where what is needed is missing or wrong, which has been noted.
fn health(
    raw: Option<&RawRegisterHealth>,
    address: &Address,
    table: &Spanned<RawRegister>,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let absent = RawRegisterHealth::default();
    let raw = raw.unwrap_or(&absent);
    let kind = match &raw.kind {
        Key::Wrong => return None,
        kind => kind.get().copied().unwrap_or_default(),
    };
    let probe = probe(kind, &raw.target, address).unwrap_or_else(|wrong| {
        let span = raw.target.span().or_else(|| raw.kind.span()).unwrap_or_else(|| table.span());
        problems.note(span, format!("register.health.target: {wrong}"));
        Probe::None
    });
    let default = HealthCheck::new(probe);
    Some(HealthCheck {
        interval: raw.interval.get().map_or(default.interval, |interval| interval.0),
        timeout: raw.timeout.get().map_or(default.timeout, |timeout| timeout.0),
        healthy_after: raw.healthy_after.get().map_or(default.healthy_after, |count| count.0),
        unhealthy_after: raw.unhealthy_after.get().map_or(default.unhealthy_after, |count| count.0),
        probe: default.probe,
    })
}

fn probe(
    kind: HealthKind,
    target: &Key<impl AsRef<str>>,
    address: &Address,
) -> Result<Probe, String> {
    let target = target.get().map(AsRef::as_ref).filter(|target| !target.is_empty());
    let host_and_port = |text: &str| {
        text.parse::<Address>().map_err(|wrong| format!("{wrong}; allowed: {}", Address::allowed()))
    };
    match (kind, target) {
        (HealthKind::None, None) => Ok(Probe::None),
        (HealthKind::None, Some(_)) => Err("kind \"none\" has no target".to_owned()),
        (HealthKind::Grpc, target) => {
            let target = target.unwrap_or(address.as_str());
            let (to, service) = target.split_once('/').unwrap_or((target, ""));
            Ok(Probe::Grpc { address: host_and_port(to)?, service: service.to_owned() })
        }
        (HealthKind::Tcp, target) => {
            Ok(Probe::Tcp(target.map_or_else(|| Ok(address.clone()), host_and_port)?))
        }
        (HealthKind::Http, Some(url)) => HttpUrl::from_text(url).map(|url| Probe::Http(url.0)),
        (HealthKind::Http, None) => {
            Err(format!("is missing, for kind \"http\"; allowed: {}", HttpUrl::allowed()))
        }
        (HealthKind::Exec, Some(command)) => Ok(Probe::Exec(command.to_owned())),
        (HealthKind::Exec, None) => {
            Err("is missing, for kind \"exec\"; allowed: a command of /bin/sh".to_owned())
        }
    }
}

/// Notes what is wrong between the registrations, and between them and the sources. `settings` are
/// those of `raw`, and of the flags that win over it.
pub(in crate::config) fn against_sources(
    raw: &RawFile,
    settings: &Settings,
    problems: &mut Problems,
) {
    let tables = raw.register.get().into_iter().flatten();
    // One that was left out has its problem already, and the rest may come after it is mended.
    if tables.clone().count() != settings.registers.len() {
        return;
    }
    let mut node = settings.node.clone();
    if node.id.is_empty() {
        node.id = host_name();
    }
    let mut names = HashSet::new();
    let mut keys: HashMap<(Arc<str>, String), Arc<str>> = HashMap::new();
    for (index, (table, register)) in tables.zip(&settings.registers).enumerate() {
        let (raw, name) = (table.get_ref(), &register.name);
        if !names.insert(name) {
            let span = raw.name.span().unwrap_or_else(|| table.span());
            let message = format!(
                "register.name: {name:?} is taken; allowed: any other name (the default is the \
                 service)"
            );
            problems.note(span, message);
        }
        let source = match source(register, settings) {
            Ok(source) => source,
            Err(wrong) => {
                let span = raw.source.span().unwrap_or_else(|| table.span());
                problems.note(span, format!("register.source: {wrong}"));
                continue;
            }
        };
        // Each its own lease, since a key may be made of it.
        match key(register, source, &node, index as i64 + 1) {
            Ok(key) => {
                if let Some(other) =
                    keys.insert((Arc::clone(&register.source), key.clone()), Arc::clone(name))
                {
                    let message = format!(
                        "register: its key would be {key:?}, as that of {other:?}; change `id` or `address`"
                    );
                    problems.note(table.span(), message);
                }
            }
            Err(wrong) => {
                let span = raw.format.span().unwrap_or_else(|| table.span());
                problems.note(span, format!("register: {wrong}"));
            }
        }
    }
}

fn source<'a>(register: &Register, settings: &'a Settings) -> Result<&'a EtcdSource, String> {
    let is_etcd = |source: &&Source| matches!(source.kind, SourceKind::Etcd(_));
    let allowed: Vec<_> =
        settings.sources.iter().filter(is_etcd).map(|s| format!("{:?}", s.name)).collect();
    let allowed = match allowed.is_empty() {
        true => "a [[source]] of kind \"etcd\", of which there is none".to_owned(),
        false => allowed.join(", "),
    };
    let name = &register.source;
    match settings.source(name).map(|source| &source.kind) {
        Some(SourceKind::Etcd(etcd)) => Ok(etcd),
        Some(SourceKind::File(_)) => {
            Err(format!("{name:?} is a file, which is only read; allowed: {allowed}"))
        }
        None => Err(format!("there is no source {name:?}; allowed: {allowed}")),
    }
}

/// The key that the registration would have.
fn key(
    register: &Register,
    source: &EtcdSource,
    node: &Node,
    lease: i64,
) -> Result<String, String> {
    let format = register.format.unwrap_or(&source.format);
    let layout = Layout::new(format, &source.prefix).filter(|_| format != "auto").ok_or_else(|| {
        let named = FORMATS.iter().filter(|format| **format != "auto");
        let named: Vec<_> = named.map(|format| format!("{format:?}")).collect();
        format!(
            "source {:?} has format {format:?}, which nothing can be written in; write `format` \
             there or here; allowed: {}",
            register.source,
            named.join(", ")
        )
    })?;
    let record = register.record(node, format, register.details(node));
    let written = layout.encode(&register.service, &record, lease);
    written.map(|written| written.key).map_err(|wrong| wrong.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::config::{Overrides, load, read::parse};

    const SOURCES: &str = "[[source]]\nformat = \"kratos\"\n[[source]]\nname = \"any\"\n[[source]]\nkind = \
                           \"file\"\npath = \"f\"\n";

    fn settings(text: &str) -> Settings {
        parse(&format!("{SOURCES}{text}"), Path::new("/")).unwrap()
    }

    /// The only mistake of the file, less its place.
    fn mistake(text: &str) -> String {
        let mut problems = parse(&format!("{SOURCES}{text}"), Path::new("/")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0).message
    }

    fn with(keys: &str) -> String {
        format!("[[register]]\nservice = \"pay\"\naddress = \"10.0.0.5:9000\"\n{keys}\n")
    }

    #[test]
    fn a_registration_needs_a_service_and_an_address_and_has_defaults_for_the_rest() {
        let settings = settings(&with(""));
        let register = &settings.registers[0];
        assert_eq!((&*register.name, &*register.source, register.format), ("pay", "main", None));
        let grpc = Probe::Grpc { address: register.address.clone(), service: String::new() };
        assert_eq!(register.health, HealthCheck::new(grpc));
        assert_eq!(register.ttl, Duration::from_secs(15));
        let node = Node { id: "n".into(), zone: "z".into(), ..Node::default() };
        let record = register.record(&node, "kratos", register.details(&node));
        assert_eq!((&*record.id, &*record.zone, record.weight), ("n", "z", 100));
        assert_eq!(mistake("[[register]]\nservice = \"a\""), "register: `address` is missing");
        assert_eq!(mistake("[[register]]\naddress = \"a:1\""), "register: `service` is missing");
    }

    #[test]
    fn what_cannot_be_registered_is_found_by_a_check() {
        for (keys, expected) in [
            (
                "source = \"mian\"",
                "register.source: there is no source \"mian\"; allowed: \"main\", \"any\"",
            ),
            (
                "source = \"file\"",
                "register.source: \"file\" is a file, which is only read; allowed",
            ),
            (
                "source = \"any\"",
                "register: source \"any\" has format \"auto\", which nothing can be",
            ),
            ("format = \"auto\"", "register: source \"main\" has format \"auto\""),
            ("format = \"go-zero\"\nweight = 0", "register: format go-zero cannot hold weight 0"),
            ("format = \"kratoss\"", "register.format: \"kratoss\" is unknown (did you mean"),
            ("id = \"a/b\"", "register: format kratos cannot hold"),
            ("ttl = \"1s\"", "register.ttl: \"1s\" is too short; allowed: a duration such as"),
            ("weight = 1000001", "register.weight: found the number 1000001; allowed: a whole"),
            ("metadata = { a = [1] }", "register.metadata.a: found an array; allowed: a string"),
            ("metadata = \"a\"", "register.metadata: found the string \"a\"; allowed: a table of"),
            (
                "health = { kind = \"http\" }",
                "register.health.target: is missing, for kind \"http\"",
            ),
            (
                "health = { kind = \"exec\" }",
                "register.health.target: is missing, for kind \"exec\"",
            ),
            (
                "health = { kind = \"none\", target = \"a\" }",
                "register.health.target: kind \"none\" has",
            ),
            (
                "health = { kind = \"tcp\", target = \"a\" }",
                "register.health.target: address \"a\" has no",
            ),
            (
                "health = { kind = \"http\", target = \"https://a/\" }",
                "register.health.target: \"https://a/\" cannot be used; allowed: a URL such as \"http:",
            ),
        ] {
            let found = mistake(&with(keys));
            assert!(found.starts_with(expected), "{keys}: {found}");
        }
        let found = mistake("[[register]]\nservice = \"pay\"\naddress = \"10.0.0.5\"");
        assert!(found.starts_with("register.address: address \"10.0.0.5\" has no port; allowed"));
    }

    #[test]
    fn two_registrations_share_neither_a_name_nor_a_key() {
        let found = mistake(&(with("") + &with("id = \"b\"")));
        assert!(
            found.starts_with("register.name: \"pay\" is taken; allowed: any other"),
            "{found}"
        );
        let found = mistake(&(with("id = \"a\"") + &with("id = \"a\"\nname = \"pay-2\"")));
        assert!(found.starts_with("register: its key would be \""), "{found}");
        let zero = "format = \"go-zero\"\nname = \"pay-2\"";
        assert_eq!(settings(&(with("format = \"go-zero\"") + &with(zero))).registers.len(), 2);
    }

    #[test]
    fn a_flag_may_name_the_format_that_the_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        fs::write(&path, with("")).unwrap();
        let wrong = load(Some(&path), &Overrides::default()).unwrap_err().to_string();
        assert!(wrong.contains(":1:1: register: source \"main\" has format \"auto\""), "{wrong}");
        let format = Some("kratos".to_owned());
        assert!(load(Some(&path), &Overrides { format, ..Overrides::default() }).is_ok());
    }
}
