//! Compression of heads (RFC 7541). What is written uses no dynamic table: nothing will be said twice.

mod decode;
mod encode;
mod huffman;
mod table;

pub(super) use decode::{Decoder, Name, weight};
pub(super) use encode::Encoder;
