//! `pillion policy put` and `rm`: changes of live policy, after a look at what they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    Named, Place,
    check::{self, document},
    failed,
};
use crate::cli::failure::{Failure, print};
use crate::config::{Document, DocumentKey};
use crate::registry::etcd::{Expect, Kv};

/// Write a document, after a look at what it changes
///
/// Shows what changes and asks. Only what was shown is changed: where somebody else writes meanwhile,
/// nothing is.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub(super) struct Put {
    /// service/NAME or route/ID
    key: DocumentKey,

    /// File with the document in TOML or JSON; - for standard input, which needs --yes
    file: PathBuf,

    #[command(flatten)]
    consent: Consent,
}

const PUT_EXAMPLES: &str = "\
Examples:
  pillion policy put service/orders orders.toml
  echo 'attempts = 5' | pillion policy put service/orders - --yes";

/// Delete a document, after a look at what that changes
#[derive(Debug, Args)]
#[command(after_help = RM_EXAMPLES)]
pub(super) struct Rm {
    /// service/NAME or route/ID, or whatever else `pillion policy ls` shows
    key: Named,

    #[command(flatten)]
    consent: Consent,
}

const RM_EXAMPLES: &str = "\
Examples:
  pillion policy rm route/10-canary
  pillion policy rm service/orders --yes
  pillion policy rm servise/orders          a key that no proxy reads";

#[derive(Debug, Args)]
struct Consent {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Put {
    pub(super) async fn run(self, place: &Place) -> Result<(), Failure> {
        let Self { key, file, consent } = self;
        let (new, text) = match file.to_str() {
            Some("-") if !consent.yes => {
                return Err(Failure::Usage("- needs --yes: nobody could answer".to_owned()));
            }
            Some("-") => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).map_err(Failure::failed)?;
                check::read(&key, Path::new("-"), text)?
            }
            _ => document(&key, &file)?,
        };
        if text.trim().is_empty() {
            let told =
                format!("there is nothing in it; `pillion policy rm {key}` takes a policy away");
            return Err(Failure::Usage(told));
        }
        let key = Named::Document(key);
        let (there, member) = place.get(&key).await?;
        if there.as_ref().is_some_and(|kv| kv.value == text.as_bytes()) {
            return print(format!("{key} says this already\n"));
        }
        print(difference(&key, there.as_ref(), Some(&new)))?;
        consent.ask("write this?")?;
        let name = place.key(&key);
        let written = member.put_if(name.as_bytes(), text.as_bytes(), None, expected(there)).await;
        done(&key, "written", written.map_err(Failure::failed)?)
    }
}

impl Rm {
    pub(super) async fn run(self, place: &Place) -> Result<(), Failure> {
        let Self { key, consent } = self;
        let name = place.key(&key);
        let (there, member) = place.get(&key).await?;
        let Some(there) = there else { return Err(failed(format!("there is no {name}"))) };
        print(difference(&key, Some(&there), None))?;
        consent.ask("delete this?")?;
        let deleted = member.delete_if(name.as_bytes(), expected(Some(there))).await;
        done(&key, "deleted", deleted.map_err(Failure::failed)?)
    }
}

fn expected(there: Option<Kv>) -> Expect {
    there.map_or(Expect::Absent, |kv| Expect::Modified(kv.modified))
}

fn done(key: &Named, what: &str, revision: Option<i64>) -> Result<(), Failure> {
    match revision {
        Some(revision) => print(format!("{key} is {what}, at revision {revision}\n")),
        None => Err(failed(format!("{key} has changed meanwhile: nothing is {what}; look again"))),
    }
}

impl Consent {
    fn ask(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(failed("nothing is changed; --yes does not ask")),
        }
    }
}

/// What changes, key by key: lines that go with `-`, lines that come with `+`.
fn difference(key: &Named, old: Option<&Kv>, new: Option<&Document>) -> String {
    let mut text = match old {
        Some(kv) => format!("{key}, as of revision {}\n", kv.modified),
        None => format!("{key}, which is new\n"),
    };
    let before = match old.map(|kv| key.read(kv)) {
        Some(Ok(document)) => document.lines(),
        Some(Err(problem)) => {
            text.push_str(&format!("what is there is refused: {problem}\n"));
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    let after = new.map(Document::lines).unwrap_or_default();
    let mut same = true;
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (before.get(name), after.get(name));
        if before == after {
            text.extend(before.map(|value| format!("  {name} = {value}\n")));
            continue;
        }
        same = false;
        text.extend(before.map(|value| format!("- {name} = {value}\n")));
        text.extend(after.map(|value| format!("+ {name} = {value}\n")));
    }
    if same && new.is_some() && old.is_some() {
        text.push_str("it says the same, in other words\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_goes_what_comes_and_what_stays() {
        let document: DocumentKey = "service/orders".parse().unwrap();
        let key = Named::Document(document.clone());
        let kv = |value: &str| Kv {
            key: Vec::new(),
            value: value.as_bytes().to_vec(),
            created: 1,
            modified: 7,
            lease: 0,
        };
        let old = kv("attempts = 3\ntimeout = \"1s\"\nconnection = \"pooled\"");
        let new = |text| Document::read(&document, text).unwrap();
        let changed = new("{\"attempts\": 5, \"connection\": \"pooled\", \"balance\": \"p2c\"}");
        assert_eq!(
            difference(&key, Some(&old), Some(&changed)),
            "service/orders, as of revision 7\n- attempts = 3\n+ attempts = 5\n+ balance = \"p2c\"\n  \
             connection = \"pooled\"\n- timeout = \"1s\"\n"
        );
        let fresh = difference(&key, None, Some(&new("attempts = 5")));
        assert_eq!(fresh, "service/orders, which is new\n+ attempts = 5\n");
        let same = difference(&key, Some(&kv("attempts = 5 # five")), Some(&new("attempts = 5")));
        assert!(same.ends_with("it says the same, in other words\n"), "{same}");
        let bad = difference(&key, Some(&kv("atempts = 5")), None);
        assert!(bad.contains("what is there is refused: 1:1: unknown key"), "{bad}");
        let stray = difference(&"servise/a".parse().unwrap(), Some(&kv("attempts = 5")), None);
        assert!(stray.contains("refused: \"servise/a\" is not the key of a policy"), "{stray}");
    }
}
