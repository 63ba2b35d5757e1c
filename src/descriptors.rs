//! The open files of the process, shared out: applications by the thousand, and calls by the thousand, leave
//! those that etcd, operators, files and probes need.
//!
//! The system gives the lowest number that is free. So the number of a socket that was just had tells
//! about how many there are, and to look at it costs no system call: [`has_one_for_a_call`] is asked of each
//! connection to an endpoint, [`Descriptors::place`] of each one that was accepted.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed},
    },
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::sync::Notify;

/// Kept for the rest of the process: a sixteenth of all, within these. etcd takes a few, and an operator's
/// page one; endpoints are asked whether they are well 64 at a time.
const LEAST_KEPT: u32 = 16;
const MOST_KEPT: u32 = 256;

/// The first number that no connection of a call may have. The limit is the process's, and so is this.
static BEYOND_CALLS: AtomicI32 = AtomicI32::new(i32::MAX);

/// Raises the limit of open files as far as the process may. Shells and service managers grant few at first, for
/// the sake of programs that cannot cope with many.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Whether a socket with this number may be used for a call; else it is to be closed again.
pub fn has_one_for_a_call(socket: RawFd) -> bool {
    socket < BEYOND_CALLS.load(Relaxed)
}

/// Whether the process, or the whole system, has no descriptor left.
pub fn ran_out(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What the system says when it has no descriptor for this process: [`ran_out`].
pub fn none_left() -> io::Error {
    Errno::MFILE.into()
}

/// What applications may have of them.
#[derive(Clone, Debug)]
pub struct Descriptors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: u32,
    /// The first number that no application's connection may have.
    beyond: RawFd,
    /// So many are kept.
    kept: u32,
    taken: AtomicU32,
    /// Whether somebody waits for one to come free.
    wanted: AtomicBool,
    freed: Notify,
}

/// The descriptor of one application's connection; dropping it says that it is free again.
#[derive(Debug)]
pub struct Place(Arc<Shared>);

impl Descriptors {
    /// Shares out what is left by what the process has opened until now.
    pub fn share_out() -> Self {
        let limit =
            getrlimit(Resource::Nofile).current.map_or(u32::MAX, |limit| limit.min(1 << 30) as u32);
        let used = File::open("/dev/null").map_or(0, |file| file.as_raw_fd().unsigned_abs());
        let Shares { calls, applications, most } = Shares::of(limit, used);
        let kept = limit - applications;
        BEYOND_CALLS.store(calls.cast_signed(), Relaxed);
        tracing::debug!(limit, used, calls, applications, most, "open files are shared out");
        Self::new(most, applications.cast_signed(), kept)
    }

    /// At most so many, with numbers below this.
    fn new(most: u32, beyond: RawFd, kept: u32) -> Self {
        let (taken, wanted, freed) = (AtomicU32::new(0), AtomicBool::new(false), Notify::new());
        Self(Arc::new(Shared { most, beyond, kept, taken, wanted, freed }))
    }

    /// A place for a connection whose socket has this number; none when applications have all that they may.
    pub fn place(&self, socket: RawFd) -> Option<Place> {
        let one_more = |taken| (taken < self.0.most).then_some(taken + 1);
        let taken =
            socket < self.0.beyond && self.0.taken.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        taken.then(|| Place(Arc::clone(&self.0)))
    }

    /// Connections that operators may have: half of what is kept, so that etcd never has to wait for them.
    pub fn of_operators(&self) -> usize {
        (self.0.kept as usize / 2).max(1)
    }

    /// Waits until an application's connection has ended.
    pub async fn freed(&self) {
        let freed = self.0.freed.notified();
        self.0.wanted.store(true, Relaxed);
        freed.await;
    }
}

impl Default for Descriptors {
    /// Any number.
    fn default() -> Self {
        Self::new(u32::MAX, RawFd::MAX, MOST_KEPT)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        if self.0.wanted.load(Relaxed) {
            self.0.wanted.store(false, Relaxed);
            self.0.freed.notify_waiters();
        }
    }
}

/// How the numbers below a limit are shared out.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    /// Numbers below this are for connections of calls, too.
    calls: u32,
    /// Numbers below this are for applications: however many calls there are, one more can connect.
    applications: u32,
    /// Applications may have so many; as many are left for calls, each of which may need one.
    most: u32,
}

impl Shares {
    /// Of `limit`, of which `used` are in use for as long as the process runs.
    fn of(limit: u32, used: u32) -> Self {
        let free = limit.saturating_sub(used);
        let kept = (limit / 16).clamp(LEAST_KEPT, MOST_KEPT).min(free / 2);
        let applications = limit - kept;
        let most = (free.saturating_sub(kept) / 2).max(1);
        Self { calls: applications - (kept / 2).min(most / 2), applications, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_get_half_of_what_is_not_kept_and_always_one() {
        let of = |limit, used| {
            let Shares { calls, applications, most } = Shares::of(limit, used);
            (calls, applications, most)
        };
        assert_eq!(of(1 << 20, 30), ((1 << 20) - 384, (1 << 20) - 256, 524_145));
        assert_eq!(of(1024, 30), (928, 960, 465));
        assert_eq!(of(64, 30), (44, 48, 9));
        assert_eq!(of(40, 30), (34, 35, 2));
        assert_eq!(of(30, 30), (30, 30, 1));
    }

    #[tokio::test]
    async fn a_place_that_comes_free_is_told_and_can_be_had() {
        let few = Descriptors::new(1, 12, 4);
        let place = few.place(10).unwrap();
        assert!(few.place(11).is_none());
        let (freed, ()) = tokio::join!(few.freed(), async { drop(place) });
        assert_eq!(freed, ());
        assert!(few.place(12).is_none(), "the number is not for applications");
        assert!(few.place(11).is_some());
    }

    #[test]
    fn no_descriptors_are_told_from_other_mishaps() {
        let of = |errno: Errno| ran_out(&errno.into());
        assert!(of(Errno::MFILE) && of(Errno::NFILE));
        assert!(!of(Errno::CONNREFUSED) && !ran_out(&io::Error::other("mfile")));
    }
}
