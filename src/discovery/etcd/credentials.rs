//! The files that connections to etcd are made with: a rotated certificate or password is used from
//! the moment that it is there, and while a connection is up that still works with the old one.

use std::future::pending;

use futures_util::future::select_all;

use crate::config::EtcdSource;
use crate::watch_file::{WatchedFile, watch};

/// The files of one source.
#[derive(Debug)]
pub(super) struct Credentials(Vec<WatchedFile>);

impl Credentials {
    /// Watches them from now on.
    pub(super) fn of(source: &EtcdSource) -> Self {
        let EtcdSource { password_file, ca_file, cert_file, key_file, .. } = source;
        let files = [password_file, ca_file, cert_file, key_file];
        Self(files.into_iter().flatten().map(|path| watch(path)).collect())
    }

    /// Waits until one of them changes. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        if self.0.is_empty() {
            return pending().await;
        }
        select_all(self.0.iter_mut().map(|file| Box::pin(file.changed()))).await;
    }
}
