//! The documents of a prefix: which are in force, and what is wrong with the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use serde::{Serialize, Serializer};

use super::store::SavedDocument;
use crate::config::{Document, DocumentKey};

/// Everything under the prefix, by what follows it.
#[derive(Debug, Default)]
pub(super) struct Documents(BTreeMap<String, Entry>);

/// What is known of one key. It has a good document, or a refusal, or both: a good one from before.
#[derive(Debug, Default)]
struct Entry {
    /// Revision and value of the last change, good or not. A cluster that takes the place of another
    /// may have used the same revision for another value.
    seen: (i64, Vec<u8>),
    good: Option<Good>,
    refused: Option<Refusal>,
}

#[derive(Debug)]
struct Good {
    key: DocumentKey,
    document: Document,
    revision: i64,
    text: String,
}

/// What is wrong with the newest value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Every mistake, with its place where the value is TOML.
    pub reason: String,
    /// Revision of the value.
    pub revision: i64,
    /// When this proxy first refused a value of this key, since it last had a good one.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
}

/// One key, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentReport {
    /// Such as `service/orders`.
    pub key: String,
    /// Revision of the value that is in force; none where there never was a good one.
    pub in_force: Option<i64>,
    /// Why the newest value is not.
    pub refused: Option<Refusal>,
}

/// What came of a change.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was known.
    Nothing,
    /// What the key says now is in force.
    InForce(String),
    /// The key is gone; whether anything of it was in force.
    Gone(String, bool),
    /// It was refused, for this reason; what was in force before, if anything, stays.
    Refused(String, String),
}

impl Documents {
    /// A key was written.
    pub(super) fn put(
        &mut self,
        name: String,
        modified: i64,
        value: &[u8],
        now: SystemTime,
    ) -> Verdict {
        let entry = self.0.entry(name.clone()).or_default();
        if entry.seen.0 == modified && entry.seen.1 == value {
            return Verdict::Nothing;
        }
        entry.seen = (modified, value.to_vec());
        match read(&name, value) {
            Ok((key, document)) => {
                let text = String::from_utf8_lossy(value).into_owned();
                entry.good = Some(Good { key, document, revision: modified, text });
                entry.refused = None;
                Verdict::InForce(name)
            }
            Err(reason) => {
                let since = entry.refused.as_ref().map_or(now, |refused| refused.since);
                entry.refused = Some(Refusal { reason: reason.clone(), revision: modified, since });
                Verdict::Refused(name, reason)
            }
        }
    }

    /// A key was deleted, and what it said with it.
    pub(super) fn delete(&mut self, name: String) -> Verdict {
        match self.0.remove(&name) {
            Some(entry) => Verdict::Gone(name, entry.good.is_some()),
            None => Verdict::Nothing,
        }
    }

    /// Only these keys are there.
    pub(super) fn retain(&mut self, names: &BTreeSet<String>) -> Vec<Verdict> {
        let gone: Vec<_> = self.0.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.into_iter().map(|name| self.delete(name)).collect()
    }

    /// What is to be laid over the file.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&DocumentKey, &Document)> {
        let good = self.0.values().filter_map(|entry| entry.good.as_ref());
        good.map(|Good { key, document, .. }| (key, document))
    }

    /// What is in force, to be kept.
    pub(super) fn save(&self) -> Vec<SavedDocument> {
        let saved = |(name, entry): (&String, &Entry)| {
            let Good { revision, text, .. } = entry.good.as_ref()?;
            Some(SavedDocument { key: name.clone(), revision: *revision, value: text.clone() })
        };
        self.0.iter().filter_map(saved).collect()
    }

    /// Every key, in the order of its text.
    pub(super) fn report(&self) -> Vec<DocumentReport> {
        let report = |(name, entry): (&String, &Entry)| DocumentReport {
            key: name.clone(),
            in_force: entry.good.as_ref().map(|good| good.revision),
            refused: entry.refused.clone(),
        };
        self.0.iter().map(report).collect()
    }
}

fn read(name: &str, value: &[u8]) -> Result<(DocumentKey, Document), String> {
    let key: DocumentKey = name.parse().map_err(|error| format!("{error}"))?;
    let text = str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?;
    let document = Document::read(&key, text).map_err(|error| error.to_string())?;
    Ok((key, document))
}

impl Verdict {
    /// Whether the settings in force are others now.
    pub(super) const fn changes(&self) -> bool {
        matches!(self, Self::InForce(_) | Self::Gone(_, true))
    }

    pub(super) fn log(&self) {
        match self {
            Self::Nothing => {}
            Self::InForce(key) => tracing::info!(%key, "live policy is in force"),
            Self::Gone(key, _) => tracing::info!(%key, "live policy is gone"),
            Self::Refused(key, reason) => {
                tracing::error!(%key, %reason, "live policy is refused, what was in force stays");
            }
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_seconds(*time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn put(documents: &mut Documents, name: &str, modified: i64, value: &str) -> Verdict {
        documents.put(
            name.to_owned(),
            modified,
            value.as_bytes(),
            NOW + Duration::from_secs(modified as u64),
        )
    }

    fn in_force(documents: &Documents) -> Vec<String> {
        documents.in_force().map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn a_bad_value_leaves_the_last_good_one_in_force_and_says_since_when() {
        let mut documents = Documents::default();
        assert!(put(&mut documents, "service/a", 3, "attempts = 2").changes());
        assert!(!put(&mut documents, "service/a", 5, "attempts = 0").changes());
        assert!(!put(&mut documents, "service/a", 7, "attempts = -1").changes());
        assert_eq!(in_force(&documents), ["service/a"]);
        let report = documents.report().remove(0);
        let refused = report.refused.unwrap();
        assert_eq!((report.in_force, refused.revision), (Some(3), 7));
        assert_eq!(refused.since, NOW + Duration::from_secs(5));
        assert!(refused.reason.contains("found the number -1"), "{}", refused.reason);
        assert!(put(&mut documents, "service/a", 9, "attempts = 3").changes());
        assert_eq!(documents.report()[0].refused, None);
    }

    #[test]
    fn what_was_never_good_is_in_force_nowhere_and_gone_when_it_is_deleted() {
        let mut documents = Documents::default();
        for name in ["service/a b", "other/a", "", "route/"] {
            assert!(!put(&mut documents, name, 1, "attempts = 2").changes(), "{name}");
        }
        assert_eq!((in_force(&documents).len(), documents.report().len()), (0, 4));
        assert!(!documents.delete("other/a".to_owned()).changes());
        assert_eq!(documents.report().len(), 3);
    }

    #[test]
    fn a_list_takes_what_is_not_in_it_away_and_what_is_known_costs_nothing() {
        let mut documents = Documents::default();
        put(&mut documents, "service/a", 1, "attempts = 2");
        put(&mut documents, "service/b", 2, "attempts = 2");
        assert!(!put(&mut documents, "service/b", 2, "attempts = 2").changes());
        let gone = documents.retain(&BTreeSet::from(["service/b".to_owned()]));
        assert!(gone.iter().any(Verdict::changes));
        assert_eq!(in_force(&documents), ["service/b"]);
    }
}
