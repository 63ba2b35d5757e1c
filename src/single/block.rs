//! From a block of fields to a head or trailers (RFC 9113 sections 8.1 to 8.3).

use http::{
    HeaderMap, HeaderName, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE},
};

use super::{
    Error, MAX_HEADER_LIST,
    hpack::{Decoder, Name, weight},
};

/// Of an earlier time of HTTP, for one connection, and not in the library's list.
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a block held.
#[derive(Debug)]
struct Fields {
    status: Option<StatusCode>,
    headers: HeaderMap,
}

/// Reads a head.
pub(super) fn head(decoder: &mut Decoder, block: &[u8]) -> Result<Response<()>, Error> {
    let Fields { status, headers } = read(decoder, block)?;
    let mut head = Response::new(());
    *head.status_mut() = status.ok_or(Error::protocol("a head without :status"))?;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = headers;
    Ok(head)
}

/// Reads trailers.
pub(super) fn trailers(decoder: &mut Decoder, block: &[u8]) -> Result<HeaderMap, Error> {
    match read(decoder, block)? {
        Fields { status: None, headers } => Ok(headers),
        Fields { .. } => Err(Error::protocol("trailers with :status")),
    }
}

/// The length of the body that a head declares, if it does.
pub(super) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut declared = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length = digits.and_then(|digits| digits.parse::<u64>().ok());
        let length = length.ok_or(Error::protocol("a content-length that is no number"))?;
        if declared.is_some_and(|declared| declared != length) {
            return Err(Error::protocol("content-lengths that differ"));
        }
        declared = Some(length);
    }
    Ok(declared)
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Error> {
    let (mut status, mut headers, mut size) = (None, HeaderMap::new(), 0);
    decoder.decode(block, |name, value| {
        size += weight(&name, &value);
        if size > MAX_HEADER_LIST {
            return Err(Error::protocol("a head that is too large"));
        }
        match name {
            Name::OfRequest => {
                return Err(Error::protocol("a pseudo-header that answers have not"));
            }
            Name::Status if status.is_some() || !headers.is_empty() => {
                return Err(Error::protocol(":status twice, or behind a header"));
            }
            Name::Status => {
                let code = StatusCode::from_bytes(value.as_bytes());
                status = Some(code.map_err(|_| Error::protocol("a :status that is none"))?);
            }
            Name::Field(name) if is_of_connection(&name, value.as_bytes()) => {
                return Err(Error::protocol("a header of one connection"));
            }
            Name::Field(name) => {
                let added = headers.try_append(name, value);
                added.map_err(|_| Error::protocol("too many headers"))?;
            }
        }
        Ok(())
    })?;
    Ok(Fields { status, headers })
}

/// Headers that HTTP/2 does not have (RFC 9113 section 8.2.2).
fn is_of_connection(name: &HeaderName, value: &[u8]) -> bool {
    [&CONNECTION, &TRANSFER_ENCODING, &UPGRADE, &KEEP_ALIVE, &PROXY_CONNECTION].contains(&name)
        || (*name == TE && value != b"trailers")
}
