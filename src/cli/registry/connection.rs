//! Which etcd, and how its records are written: the flags that the commands share.

use std::path::{Path, PathBuf};

use clap::{Args, builder::PossibleValuesParser};

use crate::cli::failure::Failure;
use crate::config::{self, EtcdSource, EtcdUrl, FORMATS, Overrides, SourceKind};
use crate::formats::Layout;
use crate::registry::etcd::{Member, Members, Position};

/// Which etcd, and how its records are written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which etcd")]
pub(super) struct ConnectionFlags {
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

    /// Start of the registry's keys, such as /microservices
    #[arg(long, value_name = "PREFIX", env = "PILLION_PREFIX", global = true)]
    prefix: Option<String>,

    /// How the records are written; auto, which only reads, without it
    #[arg(long, env = "PILLION_FORMAT", value_parser = PossibleValuesParser::new(FORMATS))]
    #[arg(global = true)]
    format: Option<String>,

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

/// An etcd, and the layout of its records.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: EtcdSource,
    pub(super) layout: Layout,
}

impl ConnectionFlags {
    /// What the flags come to.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        self.over(self.base(self.source.as_deref())?)
    }

    /// The source of the configuration that has this name, or the first; the default without a
    /// configuration.
    pub(super) fn base(&self, name: Option<&str>) -> Result<EtcdSource, Failure> {
        match (&self.config, name) {
            (Some(path), name) => from_file(path, name, !self.etcd.is_empty()),
            (None, Some(name)) => Err(Failure::Usage(format!(
                "source {name:?} is one of a configuration: give -c FILE too"
            ))),
            (None, None) => Ok(EtcdSource::default()),
        }
    }

    /// Lets the flags win over `source`.
    fn over(&self, mut source: EtcdSource) -> Result<Place, Failure> {
        if !self.etcd.is_empty() {
            source.endpoints = self.etcd.iter().map(|url| url.as_str().to_owned()).collect();
        }
        let set = |to: &mut String, from: &Option<String>| {
            from.iter().for_each(|from| to.clone_from(from));
        };
        set(&mut source.prefix, &self.prefix);
        set(&mut source.format, &self.format);
        set(&mut source.username, &self.username);
        let set = |to: &mut Option<PathBuf>, from: &Option<PathBuf>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        set(&mut source.password_file, &self.password_file);
        set(&mut source.ca_file, &self.ca_file);
        set(&mut source.cert_file, &self.cert_file);
        set(&mut source.key_file, &self.key_file);
        Place::new(source)
    }
}

impl Place {
    /// Checks what no single flag can tell.
    pub(super) fn new(source: EtcdSource) -> Result<Self, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if source.username.is_empty() != source.password_file.is_none() {
            return usage("--username and --password-file need each other");
        }
        if source.cert_file.is_none() != source.key_file.is_none() {
            return usage("--cert-file and --key-file need each other");
        }
        let Some(layout) = Layout::new(&source.format, &source.prefix) else {
            return usage(&format!("there is no format {:?}", source.format));
        };
        Ok(Self { source, layout })
    }

    /// A member that answers.
    pub(super) async fn connect(&self) -> Result<(Member, Position), Failure> {
        let mut members = Members::new(self.source.clone());
        members.connect_any().await.map_err(Failure::failed)
    }
}

/// The etcd source `name` of a file, or its first; where it has none, the default will do if the flags
/// say which etcd.
fn from_file(path: &Path, name: Option<&str>, has_etcd: bool) -> Result<EtcdSource, Failure> {
    let sources = config::load(Some(path), &Overrides::default())?.settings.sources;
    let etcd = sources.iter().filter_map(|source| match &source.kind {
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
