//! TLS: what is inherited, and what needs what.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{note, path, says_something};
use crate::config::{
    problem::Problems,
    raw::{RawListenerTls, RawPolicy, RawTls},
    settings::SocketPath,
    table::Key,
    tls::{EndpointTls, ListenerTls},
};

/// How TLS is spoken where `table` (`listener.tls`, `admin.tls`) is about; none where it is not, or where
/// what it needs is missing.
pub(super) fn listener(
    table: &str,
    address: &Key<SocketPath>,
    tls: &Key<RawListenerTls>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<ListenerTls> {
    let raw = tls.get()?;
    if matches!(address.get(), Some(SocketPath::Unix(_))) {
        let message =
            format!("{table}: a Unix socket speaks plaintext; allowed where `address` is IP:port");
        note(tls, message, problems);
    }
    for (name, key) in [("cert", &raw.cert), ("key", &raw.key)] {
        if !says_something(key) {
            note(tls, format!("{table}: `{name}` is missing"), problems);
        }
    }
    let client_ca = path(&raw.client_ca, folder);
    let allow = raw.allow.get().cloned().unwrap_or_default();
    if !allow.is_empty() && !says_something(&raw.client_ca) {
        let message =
            format!("{table}.allow: needs `client_ca` beside it, or nobody has to have a name");
        note(&raw.allow, message, problems);
    }
    Some(ListenerTls {
        cert: path(&raw.cert, folder)?,
        key: path(&raw.key, folder)?,
        client_ca,
        allow,
        min_version: raw.min_version.get().copied().unwrap_or_default(),
    })
}

/// The TLS of `raw`, where it says nothing that of `base`.
pub(super) fn endpoint(raw: &RawTls, base: &EndpointTls) -> Arc<EndpointTls> {
    let some = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
    Arc::new(EndpointTls {
        mode: raw.mode.get().copied().unwrap_or(base.mode),
        ca: raw.ca.get().map_or_else(|| base.ca.clone(), some),
        identity: match (raw.cert.get(), raw.key.get()) {
            (None, None) => base.identity.clone(),
            (cert, key) => cert.and_then(some).zip(key.and_then(some)),
        },
        server_name: match raw.server_name.get() {
            Some(name) => name.0.clone(),
            None => base.server_name.clone(),
        },
        verify: raw.verify.get().unwrap_or(&base.verify).clone(),
        min_version: raw.min_version.get().copied().unwrap_or(base.min_version),
    })
}

/// Notes a certificate without a key beside it, or the other way round.
pub(super) fn check(raw: &RawPolicy, problems: &mut Problems) {
    let Some(raw) = raw.tls.get() else { return };
    match (says_something(&raw.cert), says_something(&raw.key)) {
        (true, false) => note(&raw.cert, "tls.cert: needs `key` beside it", problems),
        (false, true) => note(&raw.key, "tls.key: needs `cert` beside it", problems),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TlsMode, TlsVersion, read::parse};

    fn mistake(text: &str) -> String {
        let problems = parse(text, Path::new("/etc/pillion")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        format!("{}:{}: {}", problems[0].line, problems[0].column, problems[0].message)
    }

    #[test]
    fn a_service_inherits_what_it_does_not_say_and_paths_start_at_the_folder_of_the_file() {
        let text = r#"
            [defaults.tls]
            mode = "on"
            ca = "ca.pem"
            cert = "me.pem"
            key = "/run/me.key"
            [service.a.tls]
            server_name = "a.internal"
            min_version = "1.2"
            [service.b.tls]
            ca = ""
            cert = ""
            key = ""
            mode = "auto"
        "#;
        let settings = parse(text, Path::new("/etc/pillion")).unwrap();
        let a = &settings.policy(&"a".parse().unwrap()).tls;
        let own = (PathBuf::from("/etc/pillion/me.pem"), PathBuf::from("/run/me.key"));
        assert_eq!((a.mode, a.identity.as_ref()), (TlsMode::On, Some(&own)));
        assert_eq!(a.ca.as_deref(), Some(Path::new("/etc/pillion/ca.pem")));
        assert_eq!(a.server_name.as_ref().unwrap().to_str(), "a.internal");
        assert_eq!(
            (a.min_version, settings.defaults.tls.min_version),
            (TlsVersion::V1_2, TlsVersion::V1_3)
        );
        let b = &settings.policy(&"b".parse().unwrap()).tls;
        assert_eq!(**b, EndpointTls::default());
    }

    #[test]
    fn what_makes_no_sense_by_itself_is_refused() {
        let listener = |keys: &str| {
            mistake(&format!("[[listener]]\naddress = \"[::1]:1\"\n[listener.tls]\n{keys}"))
        };
        assert_eq!(listener("cert = \"c\""), "3:1: listener.tls: `key` is missing");
        assert!(
            listener("cert = \"c\"\nkey = \"k\"\nallow = [\"a\"]")
                .starts_with("6:9: listener.tls.allow: needs")
        );
        assert!(
            listener("cert = \"c\"\nkey = \"k\"\nallow = [\"*\"]")
                .contains("\"*\" is no name of a certificate")
        );
        assert!(
            listener("cert = \"c\"\nkey = \"k\"\nmin_version = \"1.1\"")
                .contains("allowed: \"1.3\", \"1.2\"")
        );
        let unix = "[[listener]]\naddress = \"unix:/s\"\ntls = { cert = \"c\", key = \"k\" }";
        assert!(mistake(unix).contains("a Unix socket speaks plaintext"));
        let admin = "[admin]\naddress = \"127.0.0.1:1\"\ntls = { cert = \"c\" }";
        assert_eq!(mistake(admin), "3:7: admin.tls: `key` is missing");
        assert_eq!(mistake("[defaults.tls]\ncert = \"c\""), "2:8: tls.cert: needs `key` beside it");
        assert!(mistake("[defaults.tls]\nserver_name = \"a b\"").contains("is no host name"));
    }
}
