//! The table that HPACK begins with (RFC 7541 appendix A), and names in it.

use http::{HeaderName, HeaderValue, header};

use super::Name;

/// How many entries it has; they count from 1.
pub(super) const LENGTH: usize = 61;

/// Names of the entries from 15 on, which have no value but for the second.
static FIELDS: [HeaderName; 47] = [
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ACCEPT,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    HeaderName::from_static("refresh"),
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

/// Values of `:status` of the entries from 8 to 14.
const STATUS: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];

/// The entry at `index`; none beyond the end, and at 0.
pub(super) fn entry(index: usize) -> Option<(Name, HeaderValue)> {
    Some(match index {
        1..=7 => (Name::OfRequest, HeaderValue::from_static("")),
        8..=14 => (Name::Status, HeaderValue::from_static(STATUS[index - 8])),
        16 => (Name::Field(FIELDS[1].clone()), HeaderValue::from_static("gzip, deflate")),
        15..=LENGTH => (Name::Field(FIELDS[index - 15].clone()), HeaderValue::from_static("")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_where_the_rfc_has_them() {
        let name = |index| match entry(index) {
            Some((Name::Field(name), _)) => name,
            other => panic!("{index}: {other:?}"),
        };
        assert_eq!(name(15), "accept-charset");
        assert_eq!(name(28), "content-length");
        assert_eq!(name(31), "content-type");
        assert_eq!(name(52), "refresh");
        assert_eq!(name(58), "user-agent");
        assert_eq!(name(61), "www-authenticate");
        assert!(matches!(entry(8), Some((Name::Status, value)) if value == "200"));
        assert!(entry(0).is_none() && entry(62).is_none());
    }
}
