//! Tells when a file may have changed, whatever way it was replaced.
//!
//! The folder is watched, not the file: editors and `mv` put a new file in its place, and Kubernetes
//! swaps a symbolic link beside it. Whoever is told reads the file again and compares, because a
//! neighbour of the file is reason enough to be told.

use std::path::Path;

use notify::{
    Event, EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

/// Watches the folder of `path`, which need not exist itself. Changes in quick succession may arrive
/// as one. Watching ends when the receiver is dropped. Needs a tokio runtime.
///
/// # Errors
/// When the folder does not exist or the system has no watch left.
pub fn watch(path: &Path) -> Result<mpsc::Receiver<()>, notify::Error> {
    let (sender, receiver) = mpsc::channel(1);
    let changes = sender.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_change(event.kind)) {
            // Full means that the receiver will look anyway.
            let _ = changes.try_send(());
        }
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    tokio::spawn(async move {
        sender.closed().await;
        drop(watcher);
    });
    Ok(receiver)
}

/// Reading is not a change, or our own reading would wake us for ever.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_file_renamed_into_place_is_a_change_and_reading_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("a.toml"), folder.path().join("a.new"));
        fs::write(&path, "1").unwrap();
        let mut changes = watch(&path).unwrap();

        fs::read(&path).unwrap();
        assert!(timeout(Duration::from_millis(100), changes.recv()).await.is_err());

        fs::write(&new, "2").unwrap();
        fs::rename(&new, &path).unwrap();
        timeout(Duration::from_secs(5), changes.recv()).await.unwrap().unwrap();
    }
}
