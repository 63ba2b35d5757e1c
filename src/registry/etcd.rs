//! Reaches etcd: one member at a time, with the time limits that the client does not set by itself.
//!
//! [`Members`] hands out a connection to one member after the other, because the client does not fail
//! over on its own. A [`Member`] lists a prefix page by page, opens a watch stream, says where its
//! store stands, keeps leases and writes keys. Any error here means "ask another member, or later"; whoever calls decides when.
//! Passwords and keys are read from their files at each connection, and never logged.

mod connect;
mod error;
mod follow;
mod hold;
mod key_watch;
mod life;
mod list;
mod watch;
mod write;

use std::time::Duration;

use etcd_client::{Client, GetOptions, ResponseHeader, Txn, TxnOp};

use crate::backoff::Backoff;

pub use connect::Members;
pub use error::EtcdError;
pub use follow::{Change, Follow, News};
pub use hold::{Held, Hold};
pub use key_watch::{KeyChange, KeyWatch};
pub use life::{LeaseLife, is_mirrored};
pub use list::{Kv, List, ListLimits};
pub use watch::{Watch, WatchRequest};
pub use write::{Expect, Lease, LeaseId};

/// Limit for TCP and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit from a request to the head of its answer; a long list may take longer as a whole.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 PING on a connection. Below 5 s a healthy etcd cuts the connection for it.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Limit for the answer to that PING.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message taken. A server set up for large requests sends larger ones than the usual 2 MiB.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Waits before etcd is tried again, by those who can wait for as long as it takes.
const fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// How far the history of a cluster has come, as one answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Cluster; another one means other keys altogether.
    pub cluster: u64,
    /// Raft term.
    pub term: u64,
    /// Revision of the key space.
    pub revision: i64,
}

impl Position {
    /// Whether a cluster that was at `earlier` can be here now. It cannot after it was restored from a
    /// backup or replaced; then nothing learned from it holds.
    pub const fn can_follow(self, earlier: Self) -> bool {
        self.cluster == earlier.cluster
            && self.term >= earlier.term
            && self.revision >= earlier.revision
    }

    /// The later of two positions in one history.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cluster: other.cluster,
            term: self.term.max(other.term),
            revision: self.revision.max(other.revision),
        }
    }
}

impl From<&ResponseHeader> for Position {
    fn from(header: &ResponseHeader) -> Self {
        Self { cluster: header.cluster_id(), term: header.raft_term(), revision: header.revision() }
    }
}

/// A connection to one member. Cloning shares it.
#[derive(Clone)]
pub struct Member {
    client: Client,
    endpoint: std::sync::Arc<str>,
}

impl Member {
    /// Its client URL, without user information.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where the member's own store stands: the cheapest question there is, and one that needs no
    /// permission on any key. It proves that the member answers, not that it is up to date: one that
    /// is cut off from the others, or lags behind them, answers too.
    ///
    /// # Errors
    /// [`EtcdError`] when the member does not answer in time, or knows no leader.
    pub async fn position(&self) -> Result<Position, EtcdError> {
        let answer = self.client.maintenance_client().status().await;
        let answer = answer.map_err(|error| self.error("status", &error))?;
        Ok(answer.header().map(Position::from).unwrap_or_default())
    }

    /// How far the cluster had come when this was asked, by the word of its quorum: a linearizable
    /// read of `key`, without its value. None where this user may not read it, which is the word of
    /// the quorum as well.
    ///
    /// # Errors
    /// [`EtcdError`] when the quorum does not answer in time.
    pub async fn latest(&self, key: &[u8]) -> Result<Option<Position>, EtcdError> {
        // As a transaction, so that etcd's own counters tell it from lists.
        let count = GetOptions::new().with_count_only();
        let read = Txn::new().and_then([TxnOp::get(list::start_of(key), Some(count))]);
        match self.client.kv_client().txn(read).await {
            Ok(answer) => Ok(answer.header().map(Position::from)),
            Err(error) => {
                let error = self.error("read", &error);
                if error.is_permission() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Logs in again; does nothing without a user name.
    ///
    /// # Errors
    /// [`EtcdError`] when the login is refused or not answered.
    pub async fn refresh_token(&self) -> Result<(), EtcdError> {
        self.client.refresh_token().await.map_err(|error| self.error("login", &error))
    }

    fn error(&self, call: &'static str, error: &etcd_client::Error) -> EtcdError {
        EtcdError::call(&self.endpoint, call, error)
    }

    /// An error that no gRPC status says.
    fn said(&self, call: &'static str, message: &str) -> EtcdError {
        let endpoint = std::sync::Arc::clone(&self.endpoint);
        EtcdError::Call { endpoint, call, code: None, message: message.to_owned() }
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_cannot_come_back_as_another_or_as_an_older_one() {
        let seen = Position { cluster: 1, term: 4, revision: 100 };
        for next in [seen, Position { revision: 101, ..seen }, Position { term: 5, ..seen }] {
            assert!(next.can_follow(seen), "{next:?}");
        }
        for other in [
            Position { cluster: 2, ..seen },
            Position { revision: 99, ..seen },
            Position { term: 3, revision: 500, ..seen },
        ] {
            assert!(!other.can_follow(seen), "{other:?}");
        }
    }
}
