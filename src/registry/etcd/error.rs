//! What can go wrong with etcd, told apart by what to do about it.

use std::{error::Error as _, path::PathBuf, sync::Arc};

use etcd_client::Error;

/// gRPC codes that etcd answers with and that matter here.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;

/// Why etcd could not be asked, or did not answer. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EtcdError {
    /// A file that the connection needs cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        problem: Arc<std::io::Error>,
    },
    /// A call failed.
    #[error("{endpoint}: {call}: {message}")]
    Call {
        /// Client URL, without user information.
        endpoint: Arc<str>,
        /// What was asked.
        call: &'static str,
        /// gRPC code of the answer; none when there was no answer.
        code: Option<i32>,
        /// What etcd or the transport says.
        message: String,
    },
}

impl EtcdError {
    pub(super) fn call(endpoint: &Arc<str>, call: &'static str, error: &Error) -> Self {
        let (code, mut message) = match error {
            Error::GRpcStatus(status) => (Some(status.code() as i32), status.message().to_owned()),
            other => (None, other.to_string()),
        };
        if let Some(cause) = cause(error)
            && !message.contains(&cause)
        {
            message = if message.is_empty() { cause } else { format!("{message}: {cause}") };
        }
        Self::Call { endpoint: Arc::clone(endpoint), call, code, message }
    }

    /// Whether this user may not read these keys: no other member will say otherwise.
    pub const fn is_permission(&self) -> bool {
        matches!(self, Self::Call { code: Some(PERMISSION_DENIED), .. })
    }

    /// Whether the login or the permission is missing: other credentials may do, or a change in etcd.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Call { code: Some(PERMISSION_DENIED | UNAUTHENTICATED), .. } => true,
            Self::Call { code: Some(INVALID_ARGUMENT), message, .. } => {
                message.contains("auth") || message.contains("user name is empty")
            }
            _ => false,
        }
    }

    /// Whether the login was refused, or has run out.
    pub fn is_login(&self) -> bool {
        matches!(self, Self::Call { code, message, .. }
            if *code == Some(UNAUTHENTICATED) || message.contains("authentication failed"))
    }

    /// Whether the member knows no leader, or did not hear of its quorum in time.
    pub fn is_leaderless(&self) -> bool {
        matches!(self, Self::Call { message, .. }
            if message.contains("no leader") || message.contains("etcdserver: request timed out"))
    }

    /// Whether the lease has expired or was revoked: what it held is gone with it.
    pub fn is_lease_gone(&self) -> bool {
        matches!(self, Self::Call { code: Some(NOT_FOUND), message, .. } if message.contains("lease"))
    }

    /// Whether the revision asked for is gone.
    pub(super) fn is_compacted(&self) -> bool {
        matches!(self, Self::Call { code: Some(OUT_OF_RANGE), message, .. } if message.contains("compacted"))
    }

    /// Whether the answer was larger than [`super::MAX_MESSAGE`].
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Call { code: Some(OUT_OF_RANGE), message, .. } if message.contains("too large"))
    }
}

/// Whether a watch was refused because the login has run out: etcd says so in the watch response, not
/// as a gRPC status.
pub(super) fn is_token_problem(reason: &str) -> bool {
    reason.contains("auth token")
}

/// The innermost cause, which is the only one that says what happened.
fn cause(error: &Error) -> Option<String> {
    let mut cause: &dyn std::error::Error = match error {
        Error::GRpcStatus(status) => status.source()?,
        Error::TransportError(error) => error.source()?,
        _ => return None,
    };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}
