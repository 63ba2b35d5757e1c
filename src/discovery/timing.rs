//! Every duration and bound of discovery, in one place.
//!
//! The defaults are what the documentation promises. Tests shorten some of them.

use std::time::Duration;

use crate::backoff::Backoff;

/// Services of lazy sources kept up to date at most; above it the longest idle one goes.
pub(super) const MAX_SERVICES: usize = 10_000;
/// Services that no source knows, yet watched because somebody asked.
pub(super) const MAX_ABSENT: usize = 256;
/// Services asked for and not yet answered; more are turned away.
pub(super) const MAX_UNANSWERED: usize = 1024;
/// Absences remembered without a watch.
pub(super) const MAX_REMEMBERED: usize = 4096;
/// Keys of one service in one source; what is above it is left out.
pub(super) const MAX_KEYS: usize = 10_000;
/// Keys read for one service, those of deeper folders included.
pub(super) const MAX_LISTED: usize = 5 * MAX_KEYS;
/// Keys read for a whole prefix.
pub(super) const MAX_LISTED_WHOLE: usize = 1_000_000;
/// Lists of one source under way at a time.
pub(super) const MAX_LISTS: usize = 8;
/// Endpoints of one service that vanish within this time count as vanished at once.
pub(super) const BRAKE_WINDOW: Duration = Duration::from_secs(10);
/// Fewer endpoints than these may always go.
pub(super) const BRAKE_LEAST: usize = 3;
/// Services that may be in doubt at a time, because their endpoints cannot be connected.
pub(super) const MAX_DOUBTED: usize = 64;
/// Rejected records shown in one snapshot; the count knows them all.
pub(super) const MAX_REJECTED_SHOWN: usize = 100;
/// A watch response of this many bytes may be a part of one revision: etcd splits at 2 MiB unless it
/// is set up otherwise.
pub(super) const LARGE_RESPONSE: usize = 512 * 1024;

/// Durations of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two questions to etcd whether it is alive. Default 5 s.
    pub heartbeat: Duration,
    /// Without any sign of life for this long, the connection is given up. Default 12 s.
    pub silence: Duration,
    /// A watch stream that is behind the cluster and silent for this long is given up. Default 20 s.
    pub stall: Duration,
    /// A set in use that has to be listed again is, within this time: at random, so that a fleet does
    /// not list all at once. Default 5 s.
    pub spread: Duration,
    /// Between two lists of the same keys, to mend what a watch may have missed; 10 % more or less.
    /// Default 10 min.
    pub relist: Duration,
    /// Least time between two lists of a service whose endpoints cannot be connected; doubles as long
    /// as that lasts. Default 5 s.
    pub recheck: Duration,
    /// A service without a call for this long is dropped. Default 10 min.
    pub idle: Duration,
    /// A service that no source knows is watched for this long after it was last asked for. Default
    /// 30 s.
    pub absent: Duration,
    /// Absence is remembered for this long when too many absent services are watched. Default 1 s.
    pub remember: Duration,
    /// Between two looks for idle and absent services. Default 5 s.
    pub sweep: Duration,
    /// Least time between two snapshots of one service. Default 10 ms.
    pub burst: Duration,
    /// Wait for the rest of a revision that etcd split. Default 20 ms.
    pub fragment: Duration,
    /// First wait after a failure; doubles up to [`Self::backoff_max`]. Default 100 ms.
    pub backoff: Duration,
    /// Longest wait after a failure. Default 10 s.
    pub backoff_max: Duration,
    /// Somebody asking for a new service cuts a wait after a failure short to this. Default 1 s.
    pub on_demand: Duration,
    /// A source that has not answered by this time after its start is late: what was saved of it is
    /// used. Default 500 ms.
    pub late: Duration,
    /// Between a change and its being saved, with what else changes meanwhile. Default 1 s.
    pub save: Duration,
    /// Between two times that it is saved how old the sets are. Default 60 s.
    pub resave: Duration,
    /// Between two looks at a file that says nothing of changes, as on some network file systems.
    /// Default 10 s.
    pub poll_file: Duration,
}

impl Timing {
    /// Waits after failures.
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff, self.backoff_max)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            silence: Duration::from_secs(12),
            stall: Duration::from_secs(20),
            spread: Duration::from_secs(5),
            relist: Duration::from_secs(600),
            recheck: Duration::from_secs(5),
            idle: Duration::from_secs(600),
            absent: Duration::from_secs(30),
            remember: Duration::from_secs(1),
            sweep: Duration::from_secs(5),
            burst: Duration::from_millis(10),
            fragment: Duration::from_millis(20),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            on_demand: Duration::from_secs(1),
            late: Duration::from_millis(500),
            save: Duration::from_secs(1),
            resave: Duration::from_secs(60),
            poll_file: Duration::from_secs(10),
        }
    }
}
