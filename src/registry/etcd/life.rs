//! How long leases have left, and which of them belong to a mirror.

use std::time::Duration;

use etcd_client::LeaseGrantOptions;

use super::{EtcdError, Lease, LeaseId, Member};

/// Upper half of the id of every lease that a mirror asks for: `pill` in ASCII. etcd makes ids of a
/// member's id and the time, which come out like this for a few hours in decades, if at all.
const MARK: i64 = 0x7069_6c6c;

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
    /// What a lease has left; none when it is gone.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd does not answer, or refuses.
    pub async fn time_to_live(&self, lease: LeaseId) -> Result<Option<LeaseLife>, EtcdError> {
        let answer = self.client.lease_client().time_to_live(lease.get(), None).await;
        let answer = match answer.map_err(|error| self.error("lease", &error)) {
            Err(error) if error.is_lease_gone() => return Ok(None),
            answer => answer?,
        };
        // -1 for one that is gone.
        let seconds = |ttl| u64::try_from(ttl).ok().map(Duration::from_secs);
        let life = |left| {
            LeaseLife { granted: seconds(answer.granted_ttl()).unwrap_or_default(), left }
        };
        Ok(seconds(answer.ttl()).map(life))
    }

    /// As [`Member::grant`], with an id that [`is_mirrored`] knows.
    ///
    /// # Errors
    /// As [`Member::grant`].
    pub(super) async fn grant_mirrored(&self, ttl: Duration) -> Result<Lease, EtcdError> {
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
