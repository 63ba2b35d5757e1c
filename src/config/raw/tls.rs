//! The keys of [listener.tls], [admin.tls] and [defaults.tls].

use std::path::{Path, PathBuf};

use super::{RawFile, RawPolicy};
use crate::config::{
    table::{Key, table},
    tls::{AskedName, TlsMode, TlsVersion},
};
use crate::model::CertificateName;

table! {
    /// TLS towards whoever connects: applications, which must offer HTTP/2 by ALPN, or operators, who
    /// speak HTTP/1.1. Without this table, plaintext is spoken. Every file is PEM, and is read again when
    /// it changes; one that is wrong changes nothing.
    struct RawListenerTls {
        /// Certificate of this proxy, followed by those that lead to its authority. Required.
        cert: PathBuf,
        /// Key of `cert`. Required.
        key: PathBuf,
        /// Authorities of which whoever connects must present a certificate; empty: none is asked for.
        client_ca: PathBuf,
        /// Names that are let in: that certificate must carry one of them. Empty: everybody with a
        /// certificate of `client_ca`.
        allow: Vec<CertificateName>,
        /// Oldest version that is spoken. Default "1.3".
        min_version: TlsVersion,
    }
}

table! {
    /// TLS towards endpoints, which must agree on HTTP/2 by ALPN. Every file is PEM, and is read again
    /// when it changes; one that is wrong changes nothing. It is of the file only: live policy cannot
    /// change it.
    struct RawTls {
        /// Whether TLS is spoken. "auto": as the endpoint's record says. "on": whatever a record says.
        /// "off": never.
        mode: TlsMode,
        /// Authorities that sign for endpoints. Empty: those that the system trusts.
        ca: PathBuf,
        /// Certificate that this proxy presents where it is asked for one; empty for none. Needs `key`.
        cert: PathBuf,
        /// Key of `cert`.
        key: PathBuf,
        /// Name that endpoints are asked for, and that their certificate must carry. Empty: the host
        /// name of the endpoint; where it has only an address, the name of the service.
        server_name: AskedName,
        /// Names of which the certificate of an endpoint must carry one, instead of `server_name`.
        verify: Vec<CertificateName>,
        /// Oldest version that is spoken.
        min_version: TlsVersion,
    }
}

impl RawFile {
    /// Lets the relative paths of its policies start at `folder`: what they are laid over later, and
    /// what lays them, knows of no folder.
    pub(in crate::config) fn start_paths_at(&mut self, folder: &Path) {
        if let Some(defaults) = self.defaults.get_mut() {
            start_at(defaults, folder);
        }
        for policy in self.service.get_mut().into_iter().flat_map(|all| all.values_mut()) {
            start_at(policy, folder);
        }
        for route in self.route.get_mut().into_iter().flatten() {
            start_at(&mut route.get_mut().policy, folder);
        }
    }
}

fn start_at(policy: &mut RawPolicy, folder: &Path) {
    let Some(tls) = policy.tls.get_mut() else { return };
    for key in [&mut tls.ca, &mut tls.cert, &mut tls.key] {
        if let Some(path) = Key::get_mut(key).filter(|path| !path.as_os_str().is_empty()) {
            *path = folder.join(&*path);
        }
    }
}
