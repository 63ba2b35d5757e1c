//! Live policy: documents in etcd, laid over the file, in force at the next call.
//!
//! The process starts it, and hands it every file that it loads; from then on only this module puts
//! settings in force. A document that is wrong changes nothing: the last good one under its key stays,
//! and [`Policy::report`] says what is wrong with it, for the admin pages and metrics. So does all of it
//! while etcd is away.

mod documents;
mod store;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::{
    config::{EtcdSource, LivePolicy, Settings},
    live::Live,
    panics::{Task, go_on},
    registry::etcd::{Change, Follow, News},
};

pub use documents::{DocumentReport, Refusal};
use documents::{Documents, Verdict};
use store::{Saved, SavedDocument, Store};

/// The file and what is laid over it. Reports may be asked for on any thread.
#[derive(Debug)]
pub struct Policy {
    live: Arc<Live>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the file says.
    file: Arc<Settings>,
    documents: Documents,
    /// Whether they were brought back from disk.
    restored: bool,
    /// Whether etcd has not been read yet since the start, nor given up while there are those from disk.
    starting: bool,
    /// Where it is kept; none without `state_dir`.
    store: Option<Store>,
    /// Where documents are read from now; none while there is no live policy.
    following: Option<Following>,
}

#[derive(Debug)]
struct Following {
    etcd: EtcdSource,
    place: LivePolicy,
    synced: bool,
    problem: Option<String>,
    task: JoinHandle<()>,
}

/// How live policy is doing.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the etcd source whose etcd it is in.
    pub source: String,
    /// Start of its keys.
    pub prefix: String,
    /// Whether all of it has been read, and etcd can be asked now.
    pub synced: bool,
    /// Why not.
    pub problem: Option<String>,
    /// Every document, by its key.
    pub documents: Vec<DocumentReport>,
}

impl Policy {
    /// Starts with what is in force, which the file says alone, and follows etcd with `tokio::spawn`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(live: Arc<Live>) -> Arc<Self> {
        let file = Arc::clone(live.load().settings());
        let store = file.state_dir.as_deref().map(Store::new);
        let place = file.live_policy_etcd();
        let saved = store.as_ref().zip(place).and_then(|(store, place)| store.read(place));
        let (mut documents, restored) = (Documents::default(), saved.is_some());
        for SavedDocument { key, revision, value } in saved.into_iter().flatten() {
            documents.put(key, revision, value.as_bytes(), SystemTime::now()).log();
        }
        let state = State { file, documents, restored, starting: true, store, following: None };
        let policy = Arc::new(Self { live, state: Mutex::new(state) });
        let mut state = policy.state();
        policy.follow(&mut state);
        policy.put_in_force(&state);
        drop(state);
        policy
    }

    /// Puts a file that was loaded again in force, with the documents over it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn load(self: &Arc<Self>, file: Settings) {
        let mut state = self.state();
        state.file = Arc::new(file);
        if state.following.is_none() {
            state.starting = false;
        }
        self.follow(&mut state);
        self.put_in_force(&state);
    }

    /// Whether it has been read once, if there is any. Until then a proxy that has just started does
    /// not know what to do with calls; one that runs goes on with what it had.
    pub fn has_been_read(&self) -> bool {
        let state = self.state();
        !state.starting || state.following.is_none()
    }

    /// How it is doing; none where the file asks for no live policy.
    pub fn report(&self) -> Option<Report> {
        let state = self.state();
        state.following.as_ref().map(|Following { place, synced, problem, .. }| Report {
            source: place.source.to_string(),
            prefix: place.prefix.clone(),
            synced: *synced,
            problem: problem.clone(),
            documents: state.documents.report(),
        })
    }

    /// Follows what the file asks for, if that is something else than before. What was read elsewhere
    /// stays in force until the new place has been read.
    fn follow(self: &Arc<Self>, state: &mut State) {
        let wanted =
            state.file.live_policy_etcd().map(|(etcd, place)| (etcd.clone(), place.clone()));
        let now = state.following.as_ref().map(|f| (f.etcd.clone(), f.place.clone()));
        if wanted == now {
            return;
        }
        if let Some(old) = state.following.take() {
            old.task.abort();
        }
        let Some((etcd, place)) = wanted else {
            state.documents = Documents::default();
            return;
        };
        let (policy, source) = (Arc::clone(self), etcd.clone());
        let prefix = format!("{}/", place.prefix);
        let task = tokio::spawn(go_on(Task::Policy, async move || {
            // Anew after a panic: a list puts right what it may have left half done.
            let mut follow = Follow::new(source.clone(), prefix.clone().into_bytes());
            loop {
                policy.take(&prefix, follow.next().await);
            }
        }));
        let problem = Some("not read yet".to_owned());
        state.following = Some(Following { etcd, place, synced: false, problem, task });
    }

    /// Takes in a piece of news: all of it, or none.
    fn take(&self, prefix: &str, news: News) {
        let mut state = self.state();
        let State { documents, restored, starting, store, following: Some(following), .. } =
            &mut *state
        else {
            return;
        };
        let name = |key: &[u8]| {
            let name = key.strip_prefix(prefix.as_bytes()).unwrap_or(key);
            String::from_utf8_lossy(name).into_owned()
        };
        let now = SystemTime::now();
        let (mut verdicts, was_starting) = (Vec::new(), *starting);
        match news {
            News::Lost(error) => {
                tracing::warn!(%error, "live policy cannot be read, what was read stays");
                (following.synced, following.problem) = (false, Some(error.to_string()));
                // What was brought back from disk has to do.
                *starting &= !*restored;
            }
            News::Listed(keys, _) => {
                (following.synced, following.problem, *starting) = (true, None, false);
                let listed = keys.iter().map(|kv| name(&kv.key)).collect();
                verdicts.extend(documents.retain(&listed));
                for kv in keys {
                    verdicts.push(documents.put(name(&kv.key), kv.modified, &kv.value, now));
                }
            }
            News::Changed(changes) => {
                verdicts.extend(changes.into_iter().map(|change| match change {
                    Change::Put(kv) => documents.put(name(&kv.key), kv.modified, &kv.value, now),
                    Change::Deleted { key, .. } => documents.delete(name(&key)),
                }));
            }
        }
        verdicts.iter().for_each(Verdict::log);
        let changes = verdicts.iter().any(Verdict::changes);
        if changes || was_starting && following.synced {
            let place = (&following.etcd, &following.place);
            store.iter().for_each(|store| store.keep(Saved::of(place, documents.save())));
        }
        if changes {
            self.put_in_force(&state);
        }
    }

    fn put_in_force(&self, state: &State) {
        self.live.replace(Arc::new(state.file.with(state.documents.in_force())));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}
