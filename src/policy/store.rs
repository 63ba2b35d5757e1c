//! Keeps live policy on disk, for a start without etcd.
//!
//! [`super::Policy`] hands over what is in force whenever that changes, and takes back at its start what
//! was handed over last.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    config::{EtcdSource, LivePolicy},
    panics::{Task, again},
    state_file,
};

/// Name of the file; no source can be called so, whose files are beside it.
const NAME: &str = "@policy.json";

/// The documents of one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Members of the etcd, sorted, and start of the keys: documents of another place are not used.
    place: (Vec<String>, String),
    pub(super) documents: Vec<SavedDocument>,
}

/// One document that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedDocument {
    /// Such as `service/orders`.
    pub(super) key: String,
    pub(super) revision: i64,
    pub(super) value: String,
}

impl Saved {
    pub(super) fn of(
        (etcd, place): (&EtcdSource, &LivePolicy),
        documents: Vec<SavedDocument>,
    ) -> Self {
        let mut members = etcd.endpoints.clone();
        members.sort();
        Self { place: (members, place.prefix.clone()), documents }
    }
}

/// Where it is kept. Dropping it ends the work.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    newest: watch::Sender<Option<Saved>>,
}

impl Store {
    /// A file in `folder`, written with `tokio::spawn`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let (newest, changes) = watch::channel(None);
        let target = path.clone();
        tokio::spawn(again(Task::Policy, move || write(target.clone(), changes.clone())));
        Self { path, newest }
    }

    /// What was kept of this place; none where there is nothing that can be used.
    pub(super) fn read(&self, place: (&EtcdSource, &LivePolicy)) -> Option<Vec<SavedDocument>> {
        let problem = match state_file::read::<Saved>(&self.path) {
            Ok(Some(saved)) if saved.place == Saved::of(place, Vec::new()).place => {
                return Some(saved.documents);
            }
            Ok(Some(_)) => "it is of other endpoints or another prefix".to_owned(),
            Ok(None) => return None,
            Err(problem) => problem,
        };
        let path = self.path.display();
        tracing::warn!(%path, problem, "the live policy on disk cannot be used");
        None
    }

    /// Keeps this instead of what was kept before.
    pub(super) fn keep(&self, saved: Saved) {
        self.newest.send_replace(Some(saved));
    }
}

async fn write(path: PathBuf, mut changes: watch::Receiver<Option<Saved>>) {
    while changes.changed().await.is_ok() {
        let Some(saved) = changes.borrow_and_update().clone() else { continue };
        let target = path.clone();
        let written = spawn_blocking(move || state_file::write(&target, &saved)).await;
        let problem = match written {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(path = %path.display(), problem, "live policy cannot be saved");
    }
}
