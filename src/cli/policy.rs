//! `pillion policy`: live policy in etcd, looked at, checked and changed, without a proxy.
//!
//! What the commands share is here: where the policy is, and how a document is read.

#![allow(rustdoc::broken_intra_doc_links, reason = "the help shows brackets as they are")]

mod change;
mod check;
mod look;

use std::{fmt, str::FromStr};

use clap::{Args, Subcommand};

use super::{
    etcd_flags::{EtcdFlags, usable},
    failure::Failure,
};
use crate::{
    config::{Document, DocumentKey, EtcdSource, LivePolicy},
    registry::etcd::{Kv, Member, Members},
};

/// Look at, check and change live policy in etcd; needs no proxy
///
/// A document has the keys of a [service.NAME] or a [[route]] in TOML or JSON. What is written acts
/// on the next call of every proxy that reads this prefix.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Policy {
    #[command(flatten)]
    etcd: EtcdFlags,

    /// Start of the keys; that of [policy] in the configuration, else /pillion/policy
    #[arg(long, value_name = "PREFIX", env = "PILLION_POLICY_PREFIX", global = true)]
    #[arg(help_heading = "Which etcd")]
    policy_prefix: Option<String>,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  pillion policy ls                                    every document, and what is wrong with which
  pillion policy get route/10-canary > canary.toml     one, as it was written
  pillion policy check route/10-canary.toml            whether a file would be taken; needs no etcd
  pillion policy put route/10-canary canary.toml       write it, after a look at what changes
  pillion policy rm route/10-canary -c pillion.toml    in the etcd of a configuration";

#[derive(Debug, Subcommand)]
enum Command {
    Ls(look::Ls),
    Get(look::Get),
    Put(change::Put),
    Rm(change::Rm),
    Check(check::Check),
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Command::Check(check) = &self.command {
            return check.run();
        }
        let place = self.place()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(async {
            match self.command {
                Command::Ls(ls) => ls.run(&place).await,
                Command::Get(get) => get.run(&place).await,
                Command::Put(put) => put.run(&place).await,
                Command::Rm(rm) => rm.run(&place).await,
                Command::Check(_) => Ok(()),
            }
        })
    }

    /// Where the policy is: flags over the configuration's `[policy]` over the defaults.
    fn place(&self) -> Result<Place, Failure> {
        let of_file = self.etcd.settings()?.and_then(|settings| settings.live_policy);
        let source = of_file.as_ref().map(|place| &*place.source);
        let source = self.etcd.base(self.etcd.source().or(source))?;
        let prefix = self.policy_prefix.as_deref();
        let prefix = prefix.or_else(|| of_file.as_ref().map(|place| &*place.prefix));
        let prefix = prefix.unwrap_or(LivePolicy::DEFAULT_PREFIX).trim_end_matches('/').to_owned();
        Ok(Place { source: usable(self.etcd.over(source))?, prefix })
    }
}

/// An etcd, and where live policy is in it.
struct Place {
    source: EtcdSource,
    /// Without a slash at the end.
    prefix: String,
}

impl Place {
    async fn connect(&self) -> Result<Member, Failure> {
        let connected = Members::new(self.source.clone()).connect_any().await;
        connected.map(|(member, _)| member).map_err(Failure::failed)
    }

    /// What is there under a key, and the member that said so.
    async fn get(&self, key: impl fmt::Display) -> Result<(Option<Kv>, Member), Failure> {
        let member = self.connect().await?;
        let found = member.get(self.key(&key).as_bytes()).await.map_err(Failure::failed)?;
        Ok((found.0, member))
    }

    fn key(&self, key: impl fmt::Display) -> String {
        format!("{}/{key}", self.prefix)
    }
}

/// What stands behind the prefix: the key of a document, or one that is none, which nobody reads and which
/// may have to go.
#[derive(Clone, Debug)]
enum Named {
    Document(DocumentKey),
    Stray(String),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(key) => Ok(Self::Document(key)),
            Err(_) if text.is_empty() => Err("allowed: what `pillion policy ls` shows".to_owned()),
            Err(_) => Ok(Self::Stray(text.to_owned())),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(key) => key.fmt(f),
            Self::Stray(text) => f.write_str(text),
        }
    }
}

impl Named {
    /// The document in a value, and why there is none.
    fn read(&self, kv: &Kv) -> Result<Document, String> {
        match self {
            Self::Document(key) => read(key, kv),
            Self::Stray(text) => {
                let wrong = text.parse::<DocumentKey>().err();
                Err(wrong.map(|wrong| wrong.to_string()).unwrap_or_default())
            }
        }
    }
}

/// The document in a value, and why there is none.
fn read(key: &DocumentKey, kv: &Kv) -> Result<Document, String> {
    let text = str::from_utf8(&kv.value).map_err(|_| "the value is not UTF-8".to_owned())?;
    Document::read(key, text).map_err(|error| error.to_string())
}

fn failed(text: impl Into<String>) -> Failure {
    Failure::failed(std::io::Error::other(text.into()))
}
