//! Whether what a configuration names of this machine can be used: files, and the user to run as.

use std::path::{Path, PathBuf};

use super::{note, path};
use crate::account::{Account, AccountError};
use crate::config::{
    problem::Problems,
    raw::{RawFile, RawListenerTls, RawTls},
    table::Key,
    token::read_token,
};
use crate::pem;

/// Notes what is wrong with the files that are named, which are read for it, and whether there is the user.
pub(in crate::config) fn files(raw: &RawFile, folder: &Path, problems: &mut Problems) {
    let (user, group) = (raw.user.text(), raw.group.text());
    match Account::find(&user, &group) {
        // A flag may name the user.
        Ok(_) | Err(AccountError::UserMissing) => {}
        Err(error @ AccountError::NoGroup(_)) => {
            note(&raw.group, format!("group: {error}"), problems)
        }
        Err(error) => note(&raw.user, format!("user: {error}"), problems),
    }
    if let Some(key) = raw.admin.get().map(|admin| &admin.token_file)
        && let Some(Err(wrong)) = path(key, folder).map(|file| read_token(&file))
    {
        note(key, format!("admin.{wrong}"), problems);
    }
    let listeners = raw.listener.get().into_iter().flatten();
    let listeners = listeners.map(|listener| ("listener.tls", &listener.get_ref().tls));
    let admin = raw.admin.get().map(|admin| ("admin.tls", &admin.tls));
    for (table, tls) in listeners.chain(admin) {
        if let Some(RawListenerTls { cert, key, client_ca, .. }) = tls.get() {
            pair(table, cert, key, folder, problems);
            authorities(&format!("{table}.client_ca"), client_ca, folder, problems);
        }
    }
    let routes = raw.route.get().into_iter().flatten().map(|route| &route.get_ref().policy);
    let services = raw.service.get().into_iter().flat_map(|services| services.values());
    for policy in raw.defaults.get().into_iter().chain(services).chain(routes) {
        if let Some(RawTls { ca, cert, key, .. }) = policy.tls.get() {
            pair("tls", cert, key, folder, problems);
            authorities("tls.ca", ca, folder, problems);
        }
    }
}

fn pair(
    table: &str,
    cert: &Key<PathBuf>,
    key: &Key<PathBuf>,
    folder: &Path,
    problems: &mut Problems,
) {
    let (Some(cert_path), Some(key_path)) = (path(cert, folder), path(key, folder)) else { return };
    if let Err(error) = pem::identity(&cert_path, &key_path) {
        let (name, at) = if error.is_of(&key_path) { ("key", key) } else { ("cert", cert) };
        note(at, format!("{table}.{name}: {error}"), problems);
    }
}

fn authorities(name: &str, key: &Key<PathBuf>, folder: &Path, problems: &mut Problems) {
    if let Some(Err(error)) = path(key, folder).map(|path| pem::authorities(&path)) {
        note(key, format!("{name}: {error}"), problems);
    }
}
