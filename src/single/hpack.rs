//! Compression of heads (RFC 7541). What is written uses no dynamic table: nothing will be said twice.

mod decode;
mod encode;
mod huffman;
mod table;

pub(super) use decode::{Decoder, Name, weight};
pub(super) use encode::Encoder;

/// Room for a dynamic table, before anything is said of it (RFC 9113 section 6.5.2).
const FIRST_TABLE: usize = 4096;
/// Form of a field that nobody who passes it on may index (RFC 7541 section 6.2.3).
const NEVER: u8 = 0x10;
