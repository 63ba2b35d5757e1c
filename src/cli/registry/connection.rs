//! Which etcd, and how its records are written: the flags that the commands share.

use clap::{Args, builder::PossibleValuesParser};

use crate::cli::{
    etcd_flags::{EtcdFlags, usable},
    failure::Failure,
};
use crate::config::{EtcdSource, FORMATS};
use crate::formats::Layout;
use crate::networks::Networks;
use crate::registry::etcd::{Member, Members, Position};

/// Which etcd, and how its records are written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which etcd")]
pub(super) struct ConnectionFlags {
    #[command(flatten)]
    etcd: EtcdFlags,

    /// Start of the registry's keys, such as /microservices
    #[arg(long, value_name = "PREFIX", env = "PILLION_PREFIX", global = true)]
    prefix: Option<String>,

    /// How the records are written; auto, which only reads, without it
    #[arg(long, env = "PILLION_FORMAT", value_parser = PossibleValuesParser::new(FORMATS))]
    #[arg(global = true)]
    format: Option<String>,
}

/// An etcd, and the layout of its records.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: EtcdSource,
    pub(super) layout: Layout,
    /// Where endpoints may be.
    pub(super) networks: Networks,
}

impl ConnectionFlags {
    /// What the flags come to.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        let mut source = self.etcd.over(self.base(self.etcd.source())?);
        self.prefix.iter().for_each(|prefix| source.prefix.clone_from(prefix));
        self.format.iter().for_each(|format| source.format.clone_from(format));
        let networks = self.etcd.networks(self.etcd.source())?;
        Ok(Place { networks, ..Place::new(source)? })
    }

    /// The source of the configuration that has this name, or the first; the default without a
    /// configuration.
    pub(super) fn base(&self, name: Option<&str>) -> Result<EtcdSource, Failure> {
        self.etcd.base(name)
    }
}

impl Place {
    /// Checks what no single flag can tell. Its endpoints may be wherever they may be by default.
    pub(super) fn new(source: EtcdSource) -> Result<Self, Failure> {
        let source = usable(source)?;
        match Layout::new(&source.format, &source.prefix) {
            Some(layout) => Ok(Self { source, layout, networks: Networks::default() }),
            None => Err(Failure::Usage(format!("there is no format {:?}", source.format))),
        }
    }

    /// A member that answers.
    pub(super) async fn connect(&self) -> Result<(Member, Position), Failure> {
        let mut members = Members::new(self.source.clone());
        members.connect_any().await.map_err(Failure::failed)
    }
}
