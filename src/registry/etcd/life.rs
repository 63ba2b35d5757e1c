//! How long leases have left, and which of them belong to a mirror.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use etcd_client::LeaseGrantOptions;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{EtcdError, Lease, LeaseId, Member};

/// Upper half of the id of every lease that a mirror asks for: `pill` in ASCII. etcd makes ids of a
/// member's id and the time, which come out like this for a few hours in decades, if at all.
const MARK: i64 = 0x7069_6c6c;
/// Questions of [`Member::lives`] that are under way at a time.
const AT_ONCE: usize = 32;

/// What a lease was granted and what it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLife {
    /// As granted.
    pub granted: Duration,
    /// Until it ends, unless somebody keeps it alive.
    pub left: Duration,
}

/// Whether a key under this lease is a copy that a mirror keeps (`pillion registry copy`). The lease
/// itself says so: a copy can be told from an original whatever its format, and from the moment that
/// it is there.
pub const fn is_mirrored(lease: i64) -> bool {
    lease >> 32 == MARK
}

impl Member {
    /// What each of `leases` has left; those that are gone are left out.
    ///
    /// # Errors
    /// [`EtcdError`] of the first one that etcd does not answer for.
    pub async fn lives(
        &self,
        leases: impl IntoIterator<Item = LeaseId>,
    ) -> Result<HashMap<LeaseId, LeaseLife>, EtcdError> {
        let ask = async |lease| Ok::<_, EtcdError>((lease, self.time_left(lease).await?));
        let asked: HashSet<LeaseId> = leases.into_iter().collect();
        let answers = stream::iter(asked).map(ask).buffer_unordered(AT_ONCE);
        let lives = answers.try_filter_map(async |(lease, life)| {
            Ok(life.map(|(left, granted)| (lease, LeaseLife { granted, left })))
        });
        lives.try_collect().await
    }

    /// As [`Member::grant`], with an id that [`is_mirrored`] knows.
    ///
    /// # Errors
    /// As [`Member::grant`].
    pub async fn grant_mirrored(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let id = MARK << 32 | i64::from(fastrand::u32(1..));
        let options = LeaseGrantOptions::new().with_id(id);
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let answer = self.client.lease_client().grant(seconds, Some(options)).await;
        let answer = answer.map_err(|error| self.error("grant", &error))?;
        let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or_default());
        match LeaseId::of(answer.id()) {
            Some(id) => Ok(Lease { id, ttl }),
            None => Err(self.said("grant", "etcd granted a lease without an id")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leases_with_the_mark_are_those_of_a_mirror() {
        assert!(is_mirrored(0x7069_6c6c_0000_0001) && is_mirrored(0x7069_6c6c_ffff_ffff));
        for other in [0, 1, 7_587_870_229_348_472_322, 0x7069_6c6d_0000_0001, -1] {
            assert!(!is_mirrored(other), "{other:x}");
        }
    }
}
