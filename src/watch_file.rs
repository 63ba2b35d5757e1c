//! Tells when a file changes, and what is no wish of whoever changes it. The configuration, the file source and the
//! host names use it.
//!
//! What counts is what the path leads to, not which event came: a file that is written in place, one
//! that another is renamed over, and one whose symbolic link is swapped (as Kubernetes does it) all
//! look different afterwards. So the events of the folder only say when to look.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use tokio::{sync::Notify, time};

/// How long a file must look the same before a change counts: writers write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// How often to look without having been told to: some file systems tell nothing (networks, a single
/// file mounted into a container), and the system may have no watch left to give.
const LOOK: Duration = Duration::from_secs(2);

/// A file that is being watched, from [`watch`] on until this is dropped.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    seen: Option<Look>,
    told: Arc<Notify>,
    /// Tells while it lives. None where the system gives no watch.
    _watcher: Option<RecommendedWatcher>,
}

/// What a path leads to, as far as a change would show. For those who need not be told of a change,
/// because they only want to know when they are asked something themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// Whether a text says anything. A full disk, a crash and an editor at the wrong moment leave files empty that said
/// something before: who reads such a file keeps what it said in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said(bool);

impl Said {
    /// By a text; white space says nothing.
    pub const fn by(text: &[u8]) -> Self {
        Self(!text.trim_ascii().is_empty())
    }

    /// Whether what is said `now` is nothing, after something.
    pub const fn is_lost(self, now: Self) -> bool {
        self.0 && !now.0
    }
}

/// Starts to watch the file at `path`, which may be missing. Never fails: where the system cannot
/// tell of changes, they are found within two seconds.
pub fn watch(path: &Path) -> WatchedFile {
    let told = Arc::new(Notify::new());
    // The folder, since a watch on the file itself ends when another is renamed over it.
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let watcher = watch_folder(folder, path.file_name(), Arc::clone(&told)).ok();
    WatchedFile { path: path.to_owned(), seen: Look::at(path), told, _watcher: watcher }
}

fn watch_folder(
    folder: &Path,
    name: Option<&OsStr>,
    told: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let name = name.map(OsStr::to_owned);
    // Called on the watcher's own thread, for errors too: then it is even more worth a look.
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // What is written into other files of the folder is no reason to look; links, which the path
        // may lead through, are not written to but replaced.
        let elsewhere = event.is_ok_and(|event| {
            matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)))
                && event.paths.iter().all(|path| path.file_name() != name.as_deref())
        });
        if !elsewhere {
            told.notify_one();
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

impl WatchedFile {
    /// Waits until the file differs from what it was at the last return, or at [`watch`], and has
    /// stood still for 50 ms. Also returns when the file disappears.
    ///
    /// Cancel safe: a change that was not returned is found by the next call.
    pub async fn changed(&mut self) {
        loop {
            let look = Look::at(&self.path);
            if look == self.seen {
                // Whether it was told or has waited long enough, the next step is to look.
                let _ = time::timeout(LOOK, self.told.notified()).await;
                continue;
            }
            time::sleep(SETTLE).await;
            if look == Look::at(&self.path) {
                self.seen = look;
                return;
            }
        }
    }
}

impl Look {
    /// What is there now; none for nothing.
    pub fn at(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use futures_util::FutureExt;

    use super::*;

    /// The texts that a reader finds when it reads at every change, until it finds `last`.
    async fn texts_until(last: &str, file: &mut WatchedFile) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.last().map(String::as_str) != Some(last) {
            time::timeout(Duration::from_secs(20), file.changed()).await.expect("a change");
            texts.push(fs::read_to_string(&file.path).unwrap_or_default());
        }
        texts
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_over_or_written_in_place_has_changed() {
        let folder = folder();
        let path = folder.path().join("p.toml");
        fs::write(&path, "one").unwrap();
        let mut file = watch(&path);
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(texts_until("two", &mut file).await, ["two"]);
        fs::write(&path, "three").unwrap();
        texts_until("three", &mut file).await;
        fs::remove_file(&path).unwrap();
        assert_eq!(texts_until("", &mut file).await, [""]);
        fs::write(&path, "four").unwrap();
        texts_until("four", &mut file).await;
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_on_the_way_to_the_file_is_a_change() {
        // As Kubernetes mounts a ConfigMap: p.toml -> ..data/p.toml, ..data -> ..1.
        let folder = folder();
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("p.toml"), text).unwrap();
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/p.toml", folder.path().join("p.toml")).unwrap();
        let mut file = watch(&folder.path().join("p.toml"));
        symlink("..2", folder.path().join("..tmp")).unwrap();
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        assert_eq!(texts_until("two", &mut file).await, ["two"]);
    }

    #[tokio::test]
    async fn reading_it_and_a_neighbour_that_changes_leave_it_as_it_was() {
        let folder = folder();
        let path = folder.path().join("p.toml");
        fs::write(&path, "one").unwrap();
        let file = watch(&path);
        fs::read(&path).unwrap();
        fs::write(folder.path().join("neighbour"), "x").unwrap();
        file.told.notified().await;
        assert_eq!(Look::at(&path), file.seen);
    }

    #[tokio::test]
    async fn a_change_is_not_lost_with_a_wait_that_is_given_up() {
        let folder = folder();
        let path = folder.path().join("p.toml");
        let mut file = watch(&path);
        fs::write(&path, "one").unwrap();
        // Given up while the file settles.
        assert_eq!(file.changed().now_or_never(), None);
        assert_eq!(texts_until("one", &mut file).await, ["one"]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_tells_of_a_change_it_is_found_by_looking() {
        let folder = folder();
        let mut file = watch(&folder.path().join("p.toml"));
        (file._watcher, file.told) = (None, Arc::default());
        let long = 5 * LOOK;
        assert!(time::timeout(long, file.changed()).await.is_err(), "nothing has changed");
        fs::write(&file.path, "one").unwrap();
        assert!(time::timeout(long, file.changed()).await.is_ok());
    }
}
