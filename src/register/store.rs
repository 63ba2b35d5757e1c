//! What a registration needs of etcd: a seam, so that the keeper can be tried against an etcd that does
//! what a real one does once in a year.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use crate::registry::etcd::{
    EtcdError, Expect, KeyChange, KeyWatch, Kv, Lease, LeaseId, Member, Members,
};

/// The members of a cluster.
pub(super) trait Store: Send + Sync + 'static {
    type Line: Line;

    /// Connects to the next member, one that answers, with credentials read anew.
    fn connect(&self) -> impl Future<Output = Result<Self::Line, EtcdError>> + Send;

    /// How many members there are.
    fn members(&self) -> usize;
}

/// A connection to one member.
pub(super) trait Line: Send + Sync {
    type Watch: Watch;

    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Lease, EtcdError>> + Send;

    /// False when the lease is gone.
    fn keep_alive(&self, lease: LeaseId) -> impl Future<Output = Result<bool, EtcdError>> + Send;

    /// What the lease has left, and was granted; none when it is gone.
    fn time_left(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Option<(Duration, Duration)>, EtcdError>> + Send;

    /// Ends a lease, which may be gone already, and deletes what is under it.
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = Result<(), EtcdError>> + Send;

    /// A key, and the revision at which that was so.
    fn get(&self, key: &str) -> impl Future<Output = Result<(Option<Kv>, i64), EtcdError>> + Send;

    /// The revision of the write; none when the key was not as expected.
    fn put_if(
        &self,
        key: &str,
        value: &str,
        lease: LeaseId,
        expect: Expect,
    ) -> impl Future<Output = Result<Option<i64>, EtcdError>> + Send;

    /// Deletes a key, if it is under this lease.
    fn delete_under(
        &self,
        key: &str,
        lease: LeaseId,
    ) -> impl Future<Output = Result<(), EtcdError>> + Send;

    /// Watches a key from a revision on.
    fn watch(&self, key: &str, from: i64) -> Self::Watch;
}

/// A watch on one key.
pub(super) trait Watch: Send {
    /// The next change. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<KeyChange, EtcdError>> + Send;
}

/// The members of a real etcd. Several connections may be tried at a time.
pub(super) struct Etcd {
    members: Members,
    tried: AtomicUsize,
}

impl Etcd {
    pub(super) const fn new(members: Members) -> Self {
        Self { members, tried: AtomicUsize::new(0) }
    }
}

impl Store for Etcd {
    type Line = Member;

    async fn connect(&self) -> Result<Member, EtcdError> {
        let mut members = self.members.clone();
        members.skip(self.tried.fetch_add(1, Relaxed));
        members.connect().await.map(|(member, _)| member)
    }

    fn members(&self) -> usize {
        self.members.len()
    }
}

impl Line for Member {
    type Watch = KeyWatch;

    async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        self.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        self.keep_alive(lease).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<(Duration, Duration)>, EtcdError> {
        self.time_left(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        self.revoke(lease).await
    }

    async fn get(&self, key: &str) -> Result<(Option<Kv>, i64), EtcdError> {
        self.get(key.as_bytes()).await
    }

    async fn put_if(
        &self,
        key: &str,
        value: &str,
        lease: LeaseId,
        expect: Expect,
    ) -> Result<Option<i64>, EtcdError> {
        self.put_if(key.as_bytes(), value.as_bytes(), lease, expect).await
    }

    async fn delete_under(&self, key: &str, lease: LeaseId) -> Result<(), EtcdError> {
        self.delete_if(key.as_bytes(), Expect::Under(lease)).await.map(drop)
    }

    fn watch(&self, key: &str, from: i64) -> KeyWatch {
        self.watch_key(key.as_bytes(), from)
    }
}

impl Watch for KeyWatch {
    async fn next(&mut self) -> Result<KeyChange, EtcdError> {
        self.next().await
    }
}
