//! Reads heads.

use std::collections::VecDeque;

use http::{HeaderName, HeaderValue};

use super::super::Error;
use super::{FIRST_TABLE, NEVER, huffman, table};

/// What an entry of the dynamic table counts besides its octets (RFC 7541 section 4).
const ENTRY: usize = 32;

/// Reads the heads of one endpoint.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    /// The dynamic table, the newest entry first.
    entries: VecDeque<(Name, HeaderValue)>,
    /// Its size, and what that may become.
    size: usize,
    most: usize,
}

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Name {
    /// `:status`.
    Status,
    /// A pseudo-header that only calls have.
    OfRequest,
    /// A header.
    Field(HeaderName),
}

impl Name {
    fn parse(octets: &[u8]) -> Result<Self, Error> {
        match octets {
            b":status" => Ok(Self::Status),
            [b':', ..] => Ok(Self::OfRequest),
            _ => HeaderName::from_lowercase(octets)
                .map(Self::Field)
                .map_err(|_| Error::protocol("a header's name that is none")),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Status | Self::OfRequest => ":status".len(),
            Self::Field(name) => name.as_str().len(),
        }
    }
}

/// Octets that `name: value` counts, here and in RFC 9113 section 6.5.2.
pub(in super::super) fn weight(name: &Name, value: &HeaderValue) -> usize {
    name.len() + value.len() + ENTRY
}

impl Decoder {
    pub(in super::super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: FIRST_TABLE }
    }

    /// Reads a whole block, and hands over one field after the other.
    ///
    /// # Errors
    /// COMPRESSION_ERROR, PROTOCOL_ERROR where a name or value has characters that it may not have, and those of
    /// `take`.
    pub(in super::super) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(Name, HeaderValue) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut may_resize = true;
        while let Some(&form) = block.first() {
            match form {
                // RFC 7541 section 6.1: a field of a table,
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    let (name, value) = self.entry(index)?;
                    take(name, value)?;
                }
                // section 6.2.1: one that the table gets,
                0x40.. => {
                    let (name, value) = self.literal(&mut block, 6)?;
                    self.insert(name.clone(), value.clone());
                    take(name, value)?;
                }
                // section 6.3: another size of the table, which comes before all fields,
                0x20.. => {
                    let most = integer(&mut block, 5)?;
                    if !may_resize || most > FIRST_TABLE {
                        return Err(Error::compression("a table that is larger than allowed"));
                    }
                    self.most = most;
                    self.shrink(0);
                    continue;
                }
                // sections 6.2.2 and 6.2.3: one that it does not get, and that perhaps nobody's may get.
                _ => {
                    let (name, mut value) = self.literal(&mut block, 4)?;
                    value.set_sensitive(form & NEVER != 0);
                    take(name, value)?;
                }
            }
            may_resize = false;
        }
        Ok(())
    }

    fn literal(&self, block: &mut &[u8], prefix: u8) -> Result<(Name, HeaderValue), Error> {
        let name = match integer(block, prefix)? {
            0 => string(block, Name::parse)?,
            index => self.entry(index)?.0,
        };
        let value = string(block, |octets| {
            HeaderValue::from_bytes(octets)
                .map_err(|_| Error::protocol("a value with characters that none has"))
        })?;
        Ok((name, value))
    }

    fn entry(&self, index: usize) -> Result<(Name, HeaderValue), Error> {
        let entry = match index.checked_sub(table::LENGTH + 1) {
            None => table::entry(index),
            Some(at) => self.entries.get(at).cloned(),
        };
        entry.ok_or(Error::compression("an index that no table has"))
    }

    fn insert(&mut self, name: Name, value: HeaderValue) {
        let weight = weight(&name, &value);
        self.shrink(weight);
        if weight <= self.most {
            self.size += weight;
            self.entries.push_front((name, value));
        }
    }

    /// Makes room for so much (RFC 7541 section 4.4).
    fn shrink(&mut self, room: usize) {
        while self.size + room > self.most
            && let Some((name, value)) = self.entries.pop_back()
        {
            self.size -= weight(&name, &value);
        }
    }
}

/// A number whose first bits are the last `prefix` of an octet (RFC 7541 section 5.1): at most 28 bits more, far
/// beyond what any length or index is.
fn integer(block: &mut &[u8], prefix: u8) -> Result<usize, Error> {
    let bad = || Error::compression("a number that does not end");
    let mask = (1u8 << prefix) - 1;
    let (first, mut rest) = block.split_first().ok_or_else(bad)?;
    let mut number = usize::from(first & mask);
    if number == usize::from(mask) {
        let mut shift = 0;
        loop {
            let (octet, behind) = rest.split_first().filter(|_| shift < 28).ok_or_else(bad)?;
            number += usize::from(octet & 0x7f) << shift;
            (rest, shift) = (behind, shift + 7);
            if octet & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// A string (RFC 7541 section 5.2).
fn string<T>(block: &mut &[u8], parse: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
    let bad = || Error::compression("a string that does not end");
    let is_huffman = block.first().ok_or_else(bad)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (octets, rest) = block.split_at_checked(length).ok_or_else(bad)?;
    *block = rest;
    if !is_huffman {
        return parse(octets);
    }
    let mut plain = Vec::with_capacity(octets.len() * 8 / 5);
    huffman::decode(octets, &mut plain).ok_or(Error::compression("what is no Huffman code"))?;
    parse(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        decoder.decode(block, |name, value| {
            let name = match name {
                Name::Status => ":status".to_owned(),
                Name::OfRequest => ":".to_owned(),
                Name::Field(name) => name.to_string(),
            };
            all.push(format!("{name}: {}", value.to_str().unwrap()));
            Ok(())
        })?;
        Ok(all)
    }

    fn octets(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        hex.chunks(2).map(octet).collect()
    }

    #[test]
    fn the_answers_of_the_rfc_are_read_one_after_the_other() {
        // Appendix C.6, with a table of 256 octets.
        let mut decoder = Decoder { most: 256, ..Decoder::new() };
        let first = octets(
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
        let place = "location: https://www.example.com";
        let all = [":status: 302", "cache-control: private", date, place];
        assert_eq!(decoded(&mut decoder, &first).unwrap(), all);
        assert_eq!(decoder.size, 222);
        let second = octets("4883 640e ffc1 c0bf");
        let all = [":status: 307", "cache-control: private", date, place];
        assert_eq!(decoded(&mut decoder, &second).unwrap(), all);
        let third = octets(
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        );
        let all = [
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            place,
            "content-encoding: gzip",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ];
        assert_eq!(decoded(&mut decoder, &third).unwrap(), all);
        assert_eq!((decoder.size, decoder.entries.len()), (215, 3));
    }

    #[test]
    fn what_must_never_be_indexed_is_passed_on_as_such() {
        let mut sensitive = Vec::new();
        let take = |_, value: HeaderValue| {
            sensitive.push(value.is_sensitive());
            Ok(())
        };
        Decoder::new().decode(&octets("00 01 61 01 62 10 01 61 01 62"), take).unwrap();
        assert_eq!(sensitive, [false, true]);
    }

    #[test]
    fn what_is_none_is_an_error_and_no_panic() {
        let is_bad = |block: &[u8]| decoded(&mut Decoder::new(), block).is_err();
        for bad in
            ["80", "be", "40", "00", "7f ff ff ff ff ff 01", "3f e2 1f", "88 20", "00 01 41 00"]
        {
            assert!(is_bad(&octets(bad)), "{bad}");
        }
        // A name of length 0, a value with a line feed, one that is longer than what there is.
        for bad in ["00 00 00", "00 01 61 01 0a", "00 01 61 05 61"] {
            assert!(is_bad(&octets(bad)), "{bad}");
        }
    }

    #[test]
    fn a_table_can_be_made_smaller_and_larger_up_to_what_it_began_with() {
        let mut decoder = Decoder::new();
        decoded(&mut decoder, &octets("40 01 61 01 62")).unwrap();
        assert_eq!(decoded(&mut decoder, &octets("be")).unwrap(), ["a: b"]);
        assert_eq!(decoded(&mut decoder, &octets("20 3f e1 1f")).unwrap(), [""; 0]);
        assert!(decoded(&mut decoder, &octets("be")).is_err());
        assert_eq!(decoder.most, 4096);
    }
}
