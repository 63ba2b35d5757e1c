//! Heads of frames (RFC 9113 section 4.1), and what is common to their payloads.

use bytes::{Buf, BufMut, BytesMut};

use super::Error;

/// Bytes of the head of a frame.
pub(super) const HEAD: usize = 9;

/// Streams and windows are numbers of 31 bits; the bit before them is reserved, and ignored.
pub(super) const LOW_31: u32 = 0x7fff_ffff;

/// Kinds of frames (RFC 9113 section 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 0x1;
    pub(in super::super) const END_STREAM: u8 = 0x1;
    pub(in super::super) const END_HEADERS: u8 = 0x4;
    pub(in super::super) const PADDED: u8 = 0x8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

/// Settings (section 6.5.2).
pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    pub(in super::super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the payload, in bytes.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// The one that `bytes` begin with; none while they are too few.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & LOW_31,
        })
    }

    /// Writes it, of a payload that is to follow.
    pub(super) fn put(self, to: &mut BytesMut) {
        let Self { length, kind, flags, stream } = self;
        to.put_uint(length as u64, 3);
        to.put_u8(kind);
        to.put_u8(flags);
        to.put_u32(stream);
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Takes the padding off `payload`, if there is any.
    pub(super) fn unpad(self, payload: &mut BytesMut) -> Result<(), Error> {
        if self.has(flag::PADDED) {
            let padding =
                payload.try_get_u8().map_err(|_| Error::size("padding without length"))?;
            let length = payload.len().checked_sub(padding.into());
            payload.truncate(length.ok_or(Error::protocol("more padding than payload"))?);
        }
        Ok(())
    }
}
