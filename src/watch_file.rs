//! Tells when a file changes. The configuration and the file source use it.
//!
//! What counts is what the path leads to, not which event came: a file that is written in place, one
//! that another is renamed over, and one whose symbolic link is swapped (as Kubernetes does it) all
//! look different afterwards. So the events of the folder only say when to look, and a neighbour
//! that changes wakes nobody.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::{Notify, mpsc},
    time,
};

/// How long a file must look the same before a change counts: writers write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// How often to look without having been told to: some file systems tell nothing (those of networks,
/// a single file that is mounted into a container).
const LOOK: Duration = Duration::from_secs(2);

/// Watches the file at `path`, which need not exist, from now on. One message says that it differs
/// from what it was at the last one and has stood still for 50 ms; it may also be gone. Changes in
/// quick succession arrive as one. Watching ends when the receiver is dropped. Needs a tokio runtime.
///
/// # Errors
/// When the folder does not exist or the system has no watch left.
pub fn watch(path: &Path) -> Result<mpsc::Receiver<()>, notify::Error> {
    let mut file = File::new(path);
    let watcher = watch_folder(path, Arc::clone(&file.told))?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _tells_while_it_lives = watcher;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                // Full means that the receiver will look anyway.
                () = file.changed() => drop(sender.try_send(())),
            }
        }
    });
    Ok(receiver)
}

/// The folder, since a watch on the file itself ends when another is renamed over it.
fn watch_folder(path: &Path, told: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Called on the watcher's own thread, for errors too: then it is even more worth a look.
    let mut watcher = notify::recommended_watcher(move |_| told.notify_one())?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// A file, and what it was when it was last told of.
struct File {
    path: PathBuf,
    seen: Option<Look>,
    told: Arc<Notify>,
}

/// What a path leads to, as far as a change would show. Looking opens nothing, so that it causes no
/// event itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl File {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: Look::at(path), told: Arc::default() }
    }

    /// Waits until the file differs from what it was at the last return and has stood still.
    async fn changed(&mut self) {
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
    fn at(path: &Path) -> Option<Self> {
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

    use super::*;

    /// What a reader finds that reads at every message, until it finds `last`.
    async fn read_until(last: &str, path: &Path, changes: &mut mpsc::Receiver<()>) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.last().map(String::as_str) != Some(last) {
            time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap();
            texts.push(fs::read_to_string(path).unwrap_or_default());
        }
        texts
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_over_written_in_place_removed_or_made_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("p.toml"), folder.path().join("p.new"));
        fs::write(&path, "one").unwrap();
        let mut changes = watch(&path).unwrap();
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(read_until("two", &path, &mut changes).await, ["two"]);
        fs::write(&path, "three").unwrap();
        read_until("three", &path, &mut changes).await;
        fs::remove_file(&path).unwrap();
        assert_eq!(read_until("", &path, &mut changes).await, [""]);
        fs::write(&path, "four").unwrap();
        read_until("four", &path, &mut changes).await;
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_on_the_way_to_the_file_is_a_change() {
        // As Kubernetes mounts a ConfigMap: p.toml -> ..data/p.toml, ..data -> ..1.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("p.toml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/p.toml", at("p.toml")).unwrap();
        let mut changes = watch(&at("p.toml")).unwrap();
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_eq!(read_until("two", &at("p.toml"), &mut changes).await, ["two"]);
    }

    #[tokio::test]
    async fn reading_it_and_a_neighbour_that_changes_leave_it_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        fs::write(&path, "one").unwrap();
        let file = File::new(&path);
        let _watcher = watch_folder(&path, Arc::clone(&file.told)).unwrap();
        fs::read(&path).unwrap();
        fs::write(folder.path().join("neighbour"), "x").unwrap();
        file.told.notified().await;
        assert_eq!(Look::at(&path), file.seen);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_tells_of_a_change_it_is_found_by_looking() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::new(&folder.path().join("p.toml"));
        let long = 5 * LOOK;
        assert!(time::timeout(long, file.changed()).await.is_err(), "nothing has changed");
        fs::write(&file.path, "one").unwrap();
        assert!(time::timeout(long, file.changed()).await.is_ok());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_cannot_be_watched() {
        assert!(watch(Path::new("/nowhere/p.toml")).is_err());
    }
}
