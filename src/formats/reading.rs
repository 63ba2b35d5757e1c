//! What became of a value.

use crate::model::{AddressError, Record};

use super::MAX_VALUE;

/// What a value says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The endpoints in it; none is a valid answer.
    pub records: Vec<Record>,
    /// Why there are not more: what is wrong with the first one that was left out.
    pub left_out: Option<RejectReason>,
    /// Weight of the instance with this id, which the service has under another key.
    pub weight_of: Option<(String, u32)>,
}

impl Reading {
    /// What is good of several instances.
    ///
    /// # Errors
    /// The first reason when none of them is.
    pub(super) fn of(
        instances: impl IntoIterator<Item = Result<Record, RejectReason>>,
    ) -> Result<Self, RejectReason> {
        let mut reading = Self::default();
        for instance in instances {
            match instance {
                Ok(record) => reading.records.push(record),
                Err(reason) => drop(reading.left_out.get_or_insert(reason)),
            }
        }
        match reading.left_out {
            Some(reason) if reading.records.is_empty() => Err(reason),
            left_out => Ok(Self { left_out, ..reading }),
        }
    }
}

impl From<Record> for Reading {
    fn from(record: Record) -> Self {
        vec![record].into()
    }
}

impl From<Vec<Record>> for Reading {
    fn from(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }
}

/// Why a key, or one of several instances in it, gives no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// More bytes than are read of a key; mostly [`super::MAX_KEY`].
    #[error("the key has {0} bytes, at most {1} are read")]
    KeyTooLong(usize, usize),
    /// The key is not UTF-8.
    #[error("the key is not UTF-8 text")]
    KeyNotText,
    /// The key has no URL where the format keeps one.
    #[error("the key does not end in an escaped URL")]
    KeyNotUrl,
    /// More than [`MAX_VALUE`] bytes.
    #[error("the value has {0} bytes, at most {MAX_VALUE} are read")]
    ValueTooLarge(usize),
    /// The value is not UTF-8.
    #[error("the value is not UTF-8 text")]
    ValueNotText,
    /// Nothing is there, where the format needs something.
    #[error("the value is empty")]
    Empty,
    /// Not the JSON object that the format needs.
    #[error("the value is not a JSON object: {0}")]
    Json(String),
    /// A field that the format needs is absent or of another type.
    #[error("the value has no usable field `{0}`")]
    Field(&'static str),
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The value says it belongs to another service.
    #[error("the value names another service, {0:?}")]
    OtherService(String),
    /// Well understood, but nothing that a gRPC call could go to. The only reason that is not a
    /// mistake: it replaces what the key said before.
    #[error("not an endpoint for gRPC: {0}")]
    NotGrpc(String),
    /// Recognised, but told apart from others only where the source names its format.
    #[error("looks like {0}, which is read by a source with `format = \"{0}\"` only")]
    Foreign(&'static str),
    /// No known format looks like this.
    #[error("the value is of no known format")]
    Unknown,
    /// The file entry is not as documented.
    #[error("{0}")]
    Entry(String),
}
