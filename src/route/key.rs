//! The key of a call: what `ring_hash` and `maglev` keep together, and the ways of a route.

use std::net::IpAddr;

use http::{HeaderMap, header::COOKIE};

use crate::{config::HashOn, model::stable_hash};

/// What a call shows that a key may be taken from.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its headers, those that speak to the proxy taken off.
    pub headers: &'a HeaderMap,
    /// `:path` without a query.
    pub path: &'a str,
    /// Hash of the header `pillion-hash-key`, if it was there.
    pub hash_key: Option<u64>,
    /// Address of the application, if it has one.
    pub source: Option<IpAddr>,
}

/// Key of a call; none where it does not show what is asked for.
pub fn key(on: &HashOn, call: Shown<'_>) -> Option<u64> {
    match on {
        HashOn::Header(name) if *name == HashOn::HEADER => call.hash_key,
        HashOn::Header(name) => {
            let mut values = call.headers.get_all(name).iter();
            let first = values.next()?;
            match values.next() {
                None => Some(stable_hash(first.as_bytes())),
                Some(second) => {
                    let all = [first, second].into_iter().chain(values);
                    let all: Vec<_> = all.map(http::HeaderValue::as_bytes).collect();
                    Some(stable_hash(&all.join(&b',')))
                }
            }
        }
        HashOn::Path => Some(stable_hash(call.path.as_bytes())),
        HashOn::Cookie(name) => cookie(call.headers, name).map(stable_hash),
        HashOn::Source => call.source.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => stable_hash(&address.octets()),
            IpAddr::V6(address) => stable_hash(&address.octets()),
        }),
    }
}

/// Value of the first cookie of a name. HTTP/2 may spread cookies over several headers (RFC 9113
/// section 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let headers = headers.get_all(COOKIE).iter();
    let mut pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (before, value) = pair.trim_ascii().split_at_checked(name.len())?;
        if before == name.as_bytes() { value.strip_prefix(b"=") } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(on: &str, headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(header) {
            map.append(name, value);
        }
        let source = Some("::ffff:10.0.0.7".parse().unwrap());
        let shown = Shown { headers: &map, path: "/a/b", hash_key: Some(7), source };
        key(&on.parse().unwrap(), shown)
    }

    #[test]
    fn a_key_is_the_hash_of_what_was_asked_for() {
        assert_eq!(key_of("header:pillion-hash-key", &[]), Some(7));
        assert_eq!(key_of("header:x-user", &[("x-user", "u1")]), Some(stable_hash(b"u1")));
        assert_eq!(
            key_of("header:x-user", &[("x-user", "a"), ("x-user", "b"), ("x-user", "c")]),
            Some(stable_hash(b"a,b,c"))
        );
        assert_eq!(key_of("path", &[]), Some(stable_hash(b"/a/b")));
        assert_eq!(key_of("source", &[]), Some(stable_hash(&[10, 0, 0, 7])));
    }

    #[test]
    fn a_cookie_is_found_in_any_of_the_headers_by_its_whole_name() {
        let cookies = [("cookie", "sessions=1; session2=2"), ("cookie", "a=b;session=x=y ; c=d")];
        assert_eq!(key_of("cookie:session", &cookies), Some(stable_hash(b"x=y")));
        assert_eq!(key_of("cookie:SESSION", &cookies), None);
        assert_eq!(key_of("cookie:d", &cookies), None);
    }

    #[test]
    fn a_call_that_does_not_show_it_has_no_key() {
        assert_eq!(key_of("header:x-user", &[("x-other", "u1")]), None);
        assert_eq!(key_of("cookie:session", &[]), None);
    }
}
