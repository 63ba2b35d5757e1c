//! Why a call ended before its end.

use std::{io, sync::Arc};

use h2::Reason;

/// Why a connection is of no use any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint reset the stream.
    #[error("stream reset by the endpoint: {}", .0.description())]
    Reset(Reason),
    /// The endpoint said GOAWAY, and has not worked on the stream.
    #[error("the endpoint said GOAWAY: {}", .0.description())]
    GoAway(Reason),
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection")]
    Closed,
    /// The system says so.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// What the endpoint sent breaks the rules.
    #[error("{what} ({})", .code.description())]
    Malformed {
        /// What RFC 9113 calls it.
        code: Reason,
        /// What it sent.
        what: &'static str,
    },
}

impl Error {
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::Malformed { code: Reason::PROTOCOL_ERROR, what }
    }

    pub(super) const fn size(what: &'static str) -> Self {
        Self::Malformed { code: Reason::FRAME_SIZE_ERROR, what }
    }

    pub(super) const fn compression(what: &'static str) -> Self {
        Self::Malformed { code: Reason::COMPRESSION_ERROR, what }
    }

    pub(super) const fn too_much(what: &'static str) -> Self {
        Self::Malformed { code: Reason::ENHANCE_YOUR_CALM, what }
    }

    pub(super) const fn flow(what: &'static str) -> Self {
        Self::Malformed { code: Reason::FLOW_CONTROL_ERROR, what }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
