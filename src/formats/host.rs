//! Addresses that records keep in parts, or within a URL.

use std::net::{IpAddr, SocketAddr};

use percent_encoding::percent_decode_str;

use crate::model::{Address, AddressError};

use super::RejectReason;

/// An address from host and port. IPv6 may have brackets or none.
pub(super) fn join(host: &str, port: u64) -> Result<Address, RejectReason> {
    match (host.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) if port > 0 => Ok(SocketAddr::new(ip, port).into()),
        _ => Ok(format!("{host}:{port}").parse()?),
    }
}

/// An address that may leave out its port.
pub(super) fn with_default_port(text: &str, port: u64) -> Result<Address, RejectReason> {
    match text.parse() {
        Err(AddressError::NoPort(_)) => join(text, port),
        // Brackets and nothing behind them.
        Err(AddressError::Port(_)) if text.ends_with(']') => join(text, port),
        address => Ok(address?),
    }
}

/// The parts of `scheme://authority/path?query` that tell where to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) scheme: &'a str,
    pub(super) authority: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split('/').next().unwrap_or_default();
        Some(Self { scheme, authority, query })
    }

    /// Pairs of the query.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (String, String)> + use<'a> {
        pairs(self.query)
    }
}

/// Pairs of a query such as `a=1&b=x+y`.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key), unescape(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair)
}

/// Go's `url.QueryUnescape`, which takes nothing amiss here.
pub(super) fn unescape(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_joined_whatever_the_host_is() {
        let join = |host, port| join(host, port).map(|address| address.to_string());
        assert_eq!(join("10.0.0.1", 80).unwrap(), "10.0.0.1:80");
        assert_eq!(join("::1", 80).unwrap(), "[::1]:80");
        assert_eq!(join("[::1]", 80).unwrap(), "[::1]:80");
        assert_eq!(join("db.local.", 80).unwrap(), "db.local.:80");
        for (host, port) in [("", 80), ("10.0.0.1", 0), ("::1", 0), ("10.0.0.1", 65_536)] {
            assert!(join(host, port).is_err(), "{host} {port}");
        }
    }

    #[test]
    fn a_port_may_be_left_out_where_there_is_a_default() {
        let address = |text| with_default_port(text, 443).map(|address| address.to_string());
        assert_eq!(address("a.local").unwrap(), "a.local:443");
        assert_eq!(address("10.0.0.1:8").unwrap(), "10.0.0.1:8");
        assert_eq!(address("[::1]").unwrap(), "[::1]:443");
        assert_eq!(address("[::1]:8").unwrap(), "[::1]:8");
        for bad in ["", "a:", "a:x", "a b"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url = Url::parse("tri://10.0.0.1:20000/org.User?version=2.0.0&a=x+y%2Cz&b&=c").unwrap();
        assert_eq!((url.scheme, url.authority), ("tri", "10.0.0.1:20000"));
        let pairs: Vec<_> = url.pairs().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["version=2.0.0", "a=x y,z", "b=", "=c"]);
        assert_eq!(Url::parse("grpc://a:1?isSecure=true").unwrap().authority, "a:1");
        assert_eq!(Url::parse("10.0.0.1:80"), None);
    }
}
