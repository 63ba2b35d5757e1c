//! Writes heads: literals, but for what the first table has of calls.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Method, Request, uri::Scheme};

use super::{FIRST_TABLE, NEVER};

/// Entries of the first table (RFC 7541 appendix A).
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const POST: u8 = 3;
const PATH: u8 = 4;
const HTTP: u8 = 6;
const HTTPS: u8 = 7;
/// Form of a field without indexing (RFC 7541 section 6.2.2).
const PLAIN: u8 = 0x00;
const INDEXED: u8 = 0x80;
/// "The dynamic table has no room" (RFC 7541 section 6.3).
const NO_TABLE: u8 = 0x20;

/// Writes heads for one endpoint.
#[derive(Debug)]
pub(in super::super) struct Encoder {
    /// Whether the endpoint is to be told that no table is used, for it has less room for one than it began with.
    must_say_so: bool,
}

impl Encoder {
    pub(in super::super) const fn new() -> Self {
        Self { must_say_so: false }
    }

    /// The endpoint has so much room for a table (SETTINGS_HEADER_TABLE_SIZE).
    pub(in super::super) const fn resize(&mut self, room: u32) {
        self.must_say_so |= room < FIRST_TABLE as u32;
    }

    /// The head of a call.
    pub(in super::super) fn request(&mut self, request: &Request<()>, to: &mut BytesMut) {
        self.begin(to);
        match *request.method() {
            Method::POST => to.put_u8(INDEXED | POST),
            ref method => indexed(METHOD, method.as_str(), to),
        }
        let uri = request.uri();
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => to.put_u8(INDEXED | HTTPS),
            _ => to.put_u8(INDEXED | HTTP),
        }
        if let Some(authority) = uri.authority() {
            indexed(AUTHORITY, authority.as_str(), to);
        }
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let whole = if *request.method() == Method::OPTIONS { "*" } else { "/" };
        indexed(PATH, if path.is_empty() { whole } else { path }, to);
        fields(request.headers(), to);
    }

    /// Trailers.
    pub(in super::super) fn trailers(&mut self, trailers: &HeaderMap, to: &mut BytesMut) {
        self.begin(to);
        fields(trailers, to);
    }

    fn begin(&mut self, to: &mut BytesMut) {
        if std::mem::take(&mut self.must_say_so) {
            to.put_u8(NO_TABLE);
        }
    }
}

fn fields(headers: &HeaderMap, to: &mut BytesMut) {
    for (name, value) in headers {
        to.put_u8(if value.is_sensitive() { NEVER } else { PLAIN });
        string(name.as_str().as_bytes(), to);
        string(value.as_bytes(), to);
    }
}

/// A value for the name of an entry of the first table, all of which take one byte.
fn indexed(name: u8, value: &str, to: &mut BytesMut) {
    to.put_u8(PLAIN | name);
    string(value.as_bytes(), to);
}

fn string(octets: &[u8], to: &mut BytesMut) {
    integer(octets.len(), to);
    to.put_slice(octets);
}

/// A number of seven bits, or more where they are not enough (RFC 7541 section 5.1).
fn integer(number: usize, to: &mut BytesMut) {
    const MOST: usize = 0x7f;
    if number < MOST {
        return to.put_u8(number as u8);
    }
    to.put_u8(MOST as u8);
    let mut rest = number - MOST;
    while rest >= 0x80 {
        to.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_the_rfc() {
        let written = |number| {
            let mut to = BytesMut::new();
            integer(number, &mut to);
            to.to_vec()
        };
        assert_eq!(written(10), [10]);
        assert_eq!(written(126), [126]);
        assert_eq!(written(127), [0x7f, 0]);
        // As 1337 in the example, with a prefix of seven bits.
        assert_eq!(written(127 + 1306), [0x7f, 0b1001_1010, 0b0000_1010]);
    }

    #[test]
    fn who_has_less_room_for_a_table_is_told_once_that_there_is_none() {
        let (mut encoder, trailers) = (Encoder::new(), HeaderMap::new());
        let written = |encoder: &mut Encoder| {
            let mut to = BytesMut::new();
            encoder.trailers(&trailers, &mut to);
            to.to_vec()
        };
        encoder.resize(8192);
        assert!(written(&mut encoder).is_empty());
        encoder.resize(0);
        assert_eq!(written(&mut encoder), [NO_TABLE]);
        assert!(written(&mut encoder).is_empty());
    }
}
