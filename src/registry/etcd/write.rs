//! Leases, and writes that name the one they live under.
//!
//! A key without a lease outlives whoever wrote it, so a lease is a type that cannot be zero, and a put
//! without one has to be asked for. Writes are compare-and-set where two writers may meet.

use std::{fmt, num::NonZeroI64, time::Duration};

use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp};

use super::{EtcdError, Kv, Member};

/// A lease that etcd has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// The lease that a key names; none for a key without one.
    pub const fn of(raw: i64) -> Option<Self> {
        match NonZeroI64::new(raw) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// As etcd writes it.
    pub const fn get(self) -> i64 {
        self.0.get()
    }
}

/// In hexadecimal, as `etcdctl lease` shows it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease and how long it lives without being kept alive. etcd raises a short one to its minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub id: LeaseId,
    /// As granted, which may be more than was asked for.
    pub ttl: Duration,
}

/// What a key must be like for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Not there.
    Absent,
    /// Last changed at this revision.
    Modified(i64),
    /// There, under this lease.
    Under(LeaseId),
}

impl Member {
    /// A new lease of `ttl`, rounded up to seconds.
    ///
    /// # Errors
    /// [`EtcdError`] when it is refused or not answered.
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let answer = self.client.lease_client().grant(seconds, None).await;
        let answer = answer.map_err(|error| self.error("grant", &error))?;
        let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or_default());
        match LeaseId::of(answer.id()) {
            Some(id) => Ok(Lease { id, ttl }),
            None => Err(self.said("grant", "etcd granted a lease without an id")),
        }
    }

    /// Gives a lease its whole time again, as it was granted. False when it is gone.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or knows no leader.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        let mut client = self.client.lease_client();
        // Waits for the first answer, which is all that is wanted of the stream.
        let exchange = client.keep_alive(lease.get());
        match tokio::time::timeout(super::REQUEST_TIMEOUT, exchange).await {
            Ok(Ok(_stream)) => Ok(true),
            Ok(Err(Error::LeaseKeepAliveError(_))) => Ok(false),
            Ok(Err(error)) => Err(self.error("keepalive", &error)),
            Err(_) => Err(self.said("keepalive", "no answer in time")),
        }
    }

    /// How long a lease, of whoever, has left and was granted for; none when it is gone.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer.
    pub async fn time_left(
        &self,
        lease: LeaseId,
    ) -> Result<Option<(Duration, Duration)>, EtcdError> {
        let answer = self.client.lease_client().time_to_live(lease.get(), None).await;
        let answer = answer.map_err(|error| self.error("lease", &error))?;
        let seconds = |seconds| u64::try_from(seconds).ok().map(Duration::from_secs);
        Ok(seconds(answer.ttl()).zip(seconds(answer.granted_ttl())))
    }

    /// Ends a lease and deletes every key under it. One that is gone already is no error.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        match self.client.lease_client().revoke(lease.get()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = self.error("revoke", &error);
                if error.is_lease_gone() { Ok(()) } else { Err(error) }
            }
        }
    }

    /// One key, none when it is not there, and the revision at which that was so. Not older than any
    /// answer of any member.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses.
    pub async fn get(&self, key: &[u8]) -> Result<(Option<Kv>, i64), EtcdError> {
        let answer = self.client.kv_client().get(key, None).await;
        let answer = answer.map_err(|error| self.error("get", &error))?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok((answer.kvs().first().map(Kv::from), revision))
    }

    /// Writes a key, whatever is there, and says at which revision. Without a lease it stays for ever.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses; [`EtcdError::is_lease_gone`].
    pub async fn put(
        &self,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<i64, EtcdError> {
        let answer = self.client.kv_client().put(key, value, Some(options(lease))).await;
        let answer = answer.map_err(|error| self.error("put", &error))?;
        Ok(answer.header().map_or(0, |header| header.revision()))
    }

    /// Writes a key if it is as expected, and says at which revision; none when it is not. Without a
    /// lease it stays for ever.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses; [`EtcdError::is_lease_gone`].
    pub async fn put_if(
        &self,
        key: &[u8],
        value: &[u8],
        lease: impl Into<Option<LeaseId>>,
        expect: Expect,
    ) -> Result<Option<i64>, EtcdError> {
        let put = TxnOp::put(key, value, Some(options(lease.into())));
        self.only_if(key, expect, put).await
    }

    /// Deletes a key; one that is not there is no error. Says whether it was.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, EtcdError> {
        let answer = self.client.kv_client().delete(key, None).await;
        let answer = answer.map_err(|error| self.error("delete", &error))?;
        Ok(answer.deleted() > 0)
    }

    /// Deletes a key if it is as expected, and says at which revision; none when it is not.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses.
    pub async fn delete_if(&self, key: &[u8], expect: Expect) -> Result<Option<i64>, EtcdError> {
        self.only_if(key, expect, TxnOp::delete(key, None)).await
    }

    async fn only_if(
        &self,
        key: &[u8],
        expect: Expect,
        then: TxnOp,
    ) -> Result<Option<i64>, EtcdError> {
        let when = match expect {
            Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expect::Modified(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
            Expect::Under(lease) => Compare::lease(key, CompareOp::Equal, lease.get()),
        };
        let answer = self.client.kv_client().txn(Txn::new().when([when]).and_then([then])).await;
        let answer = answer.map_err(|error| self.error("write", &error))?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(answer.succeeded().then_some(revision))
    }
}

fn options(lease: Option<LeaseId>) -> PutOptions {
    lease.map_or_else(PutOptions::new, |lease| PutOptions::new().with_lease(lease.get()))
}
