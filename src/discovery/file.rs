//! The file source: endpoints written down by hand, read again when the file changes.
//!
//! A file that cannot be read, is no TOML, or has become empty changes nothing. An entry that is wrong is left out and
//! shown with its line; the others count.

mod entries;

use std::{fs, io, path::Path};

use tokio::time::{Instant, timeout};

use crate::config::FileSource;
use crate::watch_file::{self, Said};

use super::{desk::Report, task::Task};

/// Larger files are refused.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Keeps the board equal to the file, for ever.
pub(super) async fn run(task: &Task, source: &FileSource) {
    // Before the file is read, so that no change falls in between.
    let mut file = watch_file::watch(&source.path);
    let path = &source.path;
    let mut reader = Reader { task, path, current: None, said: Said::default(), strays: 0 };
    loop {
        reader.look();
        // Read now and then without a change, too: that is what proves that nothing changed.
        let _ = timeout(task.timing.poll_file, file.changed()).await;
    }
}

struct Reader<'a> {
    task: &'a Task,
    path: &'a Path,
    /// What was read last, good or not.
    current: Option<Vec<u8>>,
    /// By the text that what is in use has come from.
    said: Said,
    strays: usize,
}

impl Reader<'_> {
    /// Reads the file, and applies it if it is another one than before.
    fn look(&mut self) {
        let now = Instant::now();
        match read(self.path) {
            Ok(text) => {
                if self.current.as_ref() != Some(&text) {
                    self.apply(&text);
                    self.current = Some(text);
                }
                self.task.status.proved_at(now);
            }
            Err(error) => {
                self.current = None;
                self.fail(format!("cannot read {}: {error}", self.path.display()));
            }
        }
    }

    fn apply(&mut self, text: &[u8]) {
        let Task { name, slot, status, .. } = self.task;
        let said = Said::by(text);
        if self.said.is_lost(said) {
            return self.fail(format!(
                "{}: has become empty, which is not taken for a wish: what it said stays in use; one \
                 without endpoints has a comment in it",
                self.path.display()
            ));
        }
        let entries = match entries::parse(self.path, text) {
            Ok(entries) => entries,
            Err(error) => return self.fail(format!("{}:{error}", self.path.display())),
        };
        let count: usize = entries.services.values().map(|listing| listing.items.len()).sum();
        self.said = said;
        self.task.board(|board| board.list_all(*slot, entries.services, 0));
        if status.read().synced {
            status.count_resync();
        }
        status.count_events(1);
        status.rejected(self.strays, entries.strays.len());
        self.strays = entries.strays.len();
        status.well();
        tracing::info!(source = %name, path = %self.path.display(), entries = count, "file read");
        if let Some(first) = entries.strays.first() {
            let problem = format!("{}:{first}", self.path.display());
            tracing::warn!(source = %name, %problem, "entries left out");
            status.problem(&problem);
        }
        self.task.report(Report::Up(*slot));
    }

    /// What was read before stays in use; who asks for something else is told why there may be more.
    fn fail(&self, problem: String) {
        let Task { name, slot, status, .. } = self.task;
        if status.read().problem.as_ref() != Some(&problem) {
            tracing::warn!(source = %name, %problem, "file source");
        }
        status.down(&problem);
        self.task.report(Report::Down(*slot, problem));
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    fs::read(path)
}
