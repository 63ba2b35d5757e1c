//! What goes wrong with a source, told apart for metrics.

use crate::registry::etcd::EtcdError;

/// Kinds of trouble with etcd; each is mended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection could be made.
    Connect,
    /// A connection or stream broke.
    Stream,
    /// Nothing was heard any more.
    Silence,
    /// The watch stream did not tell what there was to tell.
    Stall,
    /// The member has no leader, or does not reach its quorum.
    Leader,
    /// Another cluster, or one restored from a backup.
    History,
    /// What happened meanwhile was compacted away.
    Compaction,
    /// The login was refused, or has run out.
    Login,
    /// This user may not read some keys.
    Permission,
}

impl Trouble {
    /// All kinds, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Stream,
        Self::Silence,
        Self::Stall,
        Self::Leader,
        Self::History,
        Self::Compaction,
        Self::Login,
        Self::Permission,
    ];

    /// Value of the metric label `cause`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Stream => "stream",
            Self::Silence => "silence",
            Self::Stall => "stall",
            Self::Leader => "leader",
            Self::History => "history",
            Self::Compaction => "compaction",
            Self::Login => "login",
            Self::Permission => "permission",
        }
    }
}

/// Why the work over a connection has ended, or could not begin.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) trouble: Trouble,
    pub(super) problem: String,
}

impl Ended {
    pub(super) const fn new(trouble: Trouble, problem: String) -> Self {
        Self { trouble, problem }
    }

    /// Why a connection could not be made.
    pub(super) fn connecting(error: &EtcdError) -> Self {
        Self::of(error, Trouble::Connect)
    }

    fn of(error: &EtcdError, otherwise: Trouble) -> Self {
        let trouble = match error {
            _ if error.is_permission() => Trouble::Permission,
            _ if error.is_login() => Trouble::Login,
            _ if error.is_leaderless() => Trouble::Leader,
            _ => otherwise,
        };
        Self { trouble, problem: error.to_string() }
    }
}

/// Why a call of a connection that was there failed.
impl From<EtcdError> for Ended {
    fn from(error: EtcdError) -> Self {
        Self::of(&error, Trouble::Stream)
    }
}
