//! The Huffman code of HPACK (RFC 7541 appendix B), read only.
//!
//! The code is canonical: codes of the same length follow each other, in the order of their octets. It is told
//! by how many codes there are of each length, and by the octets in the order of their codes.

/// How many octets have a code of so many bits.
const COUNTS: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 3,
];
/// The octets, by their codes.
const OCTETS: &[u8; 256] =
    b"012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#>\0$@[]~\
      ^}<`{\\\xc3\xd0\x80\x82\x83\xa2\xb8\xc2\xe0\xe2\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\
      \xe5\xe6\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\
      \xc4\xc6\xe4\xe8\xe9\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\
      \xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed\
      \xc7\xcf\xea\xeb\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\xcb\xcc\xd3\xd4\
      \xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe\x02\x03\x04\x05\x06\x07\x08\x0b\
      \x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\n\r\x16";
/// The shortest code has so many bits.
const SHORTEST: usize = 5;

/// Reads `code`, all of it, and puts the octets behind `to`. None where it is none: octets are missing, what
/// fills the last one is not the beginning of the end mark, or the end mark is there.
pub(super) fn decode(code: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut have, mut rest) = (0u64, 0usize, code.iter());
    loop {
        while have < 32
            && let Some(&octet) = rest.next()
        {
            bits = bits << 8 | u64::from(octet);
            have += 8;
        }
        let (mut first, mut before) = (0, 0);
        let mut length = SHORTEST;
        loop {
            if length > have {
                // At most seven bits, all of them 1, fill the last octet.
                let mask = (1 << have) - 1;
                return (have < 8 && bits & mask == mask).then_some(());
            }
            let count = *COUNTS.get(length)?;
            let at = (bits >> (have - length)) as u32 & ((1 << length) - 1);
            if at < first + count {
                to.push(OCTETS[(before + at - first) as usize]);
                have -= length;
                break;
            }
            first = (first + count) << 1;
            before += count;
            length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(code: &[u8]) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        decode(code, &mut octets).map(|()| octets)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&example).unwrap(), b"www.example.com");
        let example = [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(decoded(&example).unwrap(), b"no-cache");
        assert_eq!(decoded(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn what_fills_the_last_octet_is_less_than_an_octet_and_ones() {
        // "0" has five zeros.
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        assert_eq!(decoded(&[0b0000_0110]), None);
        assert_eq!(decoded(&[0b0000_0111, 0xff]), None);
        assert_eq!(decoded(&[0xff]), None);
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn each_octet_is_read_from_its_code() {
        let (mut code, mut at) = (0u64, 0);
        for (length, count) in COUNTS.iter().enumerate() {
            for _ in 0..*count {
                // Behind it, ones up to 64 bits: five octets hold the longest.
                let padded = !(u64::MAX.checked_shr(length as u32).unwrap_or(0))
                    & code << (64 - length)
                    | u64::MAX >> length;
                let octets = length.div_ceil(8);
                let read = decoded(&padded.to_be_bytes()[..octets]);
                assert_eq!(read.unwrap(), [OCTETS[at]]);
                (code, at) = (code + 1, at + 1);
            }
            code <<= 1;
        }
        assert_eq!(at, 256);
    }
}
