//! Which etcd: the flags of the commands that connect to one.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use crate::config::{self, EtcdSource, EtcdUrl, Overrides, Settings, SourceKind};
use crate::networks::Networks;

/// Which etcd. Everything that is not said is as the configuration has it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which etcd")]
pub(super) struct EtcdFlags {
    /// Configuration file (TOML) whose etcd source is meant; flags win over it
    #[arg(short, long, value_name = "FILE", env = "PILLION_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// Name of the source in that file; the first etcd source without it
    #[arg(long, value_name = "NAME", env = "PILLION_SOURCE", global = true)]
    source: Option<String>,

    /// Client URLs of the etcd members; http://127.0.0.1:2379 without any
    #[arg(long, value_name = "URL[,URL]", env = "PILLION_ETCD", value_delimiter = ',')]
    #[arg(global = true)]
    etcd: Vec<EtcdUrl>,

    /// User name towards etcd
    #[arg(long, value_name = "NAME", env = "PILLION_USERNAME", global = true)]
    username: Option<String>,

    /// File that holds the password of --username
    #[arg(long, value_name = "FILE", env = "PILLION_PASSWORD_FILE", global = true)]
    password_file: Option<PathBuf>,

    /// Certificates (PEM) of the authorities that sign for https members
    #[arg(long, value_name = "FILE", env = "PILLION_CA_FILE", global = true)]
    ca_file: Option<PathBuf>,

    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "PILLION_CERT_FILE", global = true)]
    cert_file: Option<PathBuf>,

    /// Key (PEM) of --cert-file
    #[arg(long, value_name = "FILE", env = "PILLION_KEY_FILE", global = true)]
    key_file: Option<PathBuf>,
}

impl EtcdFlags {
    /// The configuration that is meant, if one is.
    ///
    /// # Errors
    /// Its mistakes.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Failure> {
        let load = |path: &PathBuf| config::load(Some(path), &Overrides::default());
        Ok(self.config.as_ref().map(load).transpose()?.map(|loaded| loaded.settings))
    }

    /// Name of the source that is meant, if one is.
    pub(super) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The source of the configuration that has this name, or the first; the default without a
    /// configuration.
    ///
    /// # Errors
    /// There is no such source.
    pub(super) fn base(&self, name: Option<&str>) -> Result<EtcdSource, Failure> {
        match (&self.config, self.settings()?, name) {
            (Some(path), Some(settings), name) => {
                of_settings(path, &settings, name, !self.etcd.is_empty())
            }
            (_, _, Some(name)) => Err(Failure::Usage(format!(
                "source {name:?} is one of a configuration: give -c FILE too"
            ))),
            (_, _, None) => Ok(EtcdSource::default()),
        }
    }

    /// Where the endpoints of that source may be.
    ///
    /// # Errors
    /// The configuration cannot be loaded.
    pub(super) fn networks(&self, name: Option<&str>) -> Result<Networks, Failure> {
        let Some(settings) = self.settings()? else { return Ok(Networks::default()) };
        let mut etcd = settings.sources.iter().filter(|source| {
            matches!(source.kind, SourceKind::Etcd(_))
                && name.is_none_or(|name| *source.name == *name)
        });
        let networks = etcd.next().map(|source| source.networks.clone()).unwrap_or_default();
        Ok(networks.listening_at(&settings.own_addresses()))
    }

    /// Lets the flags win over `source`.
    pub(super) fn over(&self, mut source: EtcdSource) -> EtcdSource {
        if !self.etcd.is_empty() {
            source.endpoints = self.etcd.iter().map(|url| url.as_str().to_owned()).collect();
        }
        self.username.iter().for_each(|name| source.username.clone_from(name));
        let set = |to: &mut Option<PathBuf>, from: &Option<PathBuf>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        set(&mut source.password_file, &self.password_file);
        set(&mut source.ca_file, &self.ca_file);
        set(&mut source.cert_file, &self.cert_file);
        set(&mut source.key_file, &self.key_file);
        source
    }
}

/// Checks what no single flag can tell.
///
/// # Errors
/// Of two that need each other only one is there.
pub(super) fn usable(source: EtcdSource) -> Result<EtcdSource, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    if source.username.is_empty() != source.password_file.is_none() {
        return usage("--username and --password-file need each other");
    }
    if source.cert_file.is_none() != source.key_file.is_none() {
        return usage("--cert-file and --key-file need each other");
    }
    Ok(source)
}

/// The etcd source `name` of a file, or its first; where it has none, the default will do if the flags
/// say which etcd.
fn of_settings(
    path: &Path,
    settings: &Settings,
    name: Option<&str>,
    has_etcd: bool,
) -> Result<EtcdSource, Failure> {
    let etcd = settings.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Etcd(etcd) => Some((&*source.name, etcd)),
        SourceKind::File(_) => None,
    });
    let etcd: Vec<_> = etcd.collect();
    let found = match name {
        Some(name) => etcd.iter().find(|(known, _)| *known == name),
        None => etcd.first(),
    };
    match (found, name) {
        (Some((_, source)), _) => Ok((*source).clone()),
        (None, None) if has_etcd => Ok(EtcdSource::default()),
        (None, _) => {
            let names: Vec<&str> = etcd.iter().map(|(name, _)| *name).collect();
            let known = match names.is_empty() {
                true => "it has no etcd source".to_owned(),
                false => format!("its etcd sources are {}", names.join(", ")),
            };
            let name = name.map_or(String::new(), |name| format!("no etcd source {name:?}: "));
            Err(Failure::Usage(format!("{}: {name}{known}", path.display())))
        }
    }
}
