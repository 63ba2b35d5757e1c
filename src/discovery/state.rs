//! Keeps the last sets of a source on disk, and brings them back at a start without etcd.
//!
//! [`super::task`] runs [`keep`] beside each etcd source, if there is a folder for it. What was saved
//! is offered to the [`super::desk`], which uses it once the source is out of reach, or late: sets from
//! disk are better than none, and worse than those of an etcd that answers.

mod stored;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use crate::config::{EtcdSource, Source, SourceKind};

use super::{desk::Report, task::Task};

use stored::Origin;
pub(super) use stored::{Kept, Saved, Sets};

/// Where the sets of one source are kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
    origin: Origin,
}

impl Store {
    /// The file of an etcd source in `folder`. Others have none: what a file says is on disk already.
    pub(super) fn of(folder: &Path, source: &Source) -> Option<Self> {
        let SourceKind::Etcd(etcd) = &source.kind else { return None };
        Some(Self::at(folder.join(format!("{}.json", source.name)), etcd))
    }

    fn at(path: PathBuf, source: &EtcdSource) -> Self {
        Self { path, origin: Origin::of(source) }
    }
}

/// Offers what was saved, and saves what changes from now on, for ever.
pub(super) async fn keep(task: &Task, store: Store) {
    let reading = store.clone();
    let saved = spawn_blocking(move || stored::read(&reading.path, &reading.origin)).await;
    match saved.unwrap_or_else(|panic| Err(panic.to_string())) {
        Ok(Some(saved)) => {
            task.report(Report::Saved(task.slot, saved));
            sleep(task.timing.late).await;
            task.report(Report::Late(task.slot));
        }
        Ok(None) => {}
        Err(problem) => {
            let (name, path) = (&task.name, store.path.display());
            tracing::warn!(source = %name, %path, %problem, "the saved sets cannot be used");
        }
    }
    let mut writer = Writer { task, store, written: None, took: Duration::ZERO, failed: false };
    loop {
        // How old the sets are changes all the time, and is written now and then.
        let changed = timeout(task.timing.resave, task.status.changed()).await.is_ok();
        // A large registry that never rests must not keep the disk busy.
        sleep(task.timing.save.max(50 * writer.took)).await;
        writer.write(changed).await;
    }
}

struct Writer<'a> {
    task: &'a Task,
    store: Store,
    /// When the sets that were written last were known to be current.
    written: Option<Instant>,
    /// How long that took.
    took: Duration,
    failed: bool,
}

impl Writer<'_> {
    async fn write(&mut self, changed: bool) {
        let Task { name, slot, status, .. } = self.task;
        // What was brought back from disk, and not read since, is there already.
        let Some(proved) = status.proved() else { return };
        if !(changed || self.failed) && self.written == Some(proved) {
            return;
        }
        let began = Instant::now();
        let sets = self.task.board(|board| board.sets(*slot));
        let (Store { path, origin }, age) = (self.store.clone(), proved.elapsed());
        let written = spawn_blocking(move || stored::write(&path, origin, age, sets)).await;
        self.took = began.elapsed();
        let problem = match written {
            Ok(Ok(())) => {
                (self.written, self.failed) = (Some(proved), false);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        status.count_unsaved();
        // Once is enough, however long it lasts.
        if !std::mem::replace(&mut self.failed, true) {
            let path = self.store.path.display();
            tracing::error!(source = %name, %path, problem, "sets cannot be saved, trying on");
        }
    }
}
