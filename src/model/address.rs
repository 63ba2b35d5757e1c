//! Where an endpoint listens.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

/// `host:port`: an IPv4 literal, a bracketed IPv6 literal or a host name, with a port of 1 to 65535.
///
/// A literal is parsed once, here. A host name is looked up when it is dialled, and kept for its TTL. Cloning is a
/// reference-count increment.
#[derive(Clone)]
pub struct Address {
    text: Arc<str>,
    socket: Option<SocketAddr>,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `:port` at its end.
    #[error("address {0:?} has no port")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("address {0:?} has a port outside 1 to 65535")]
    Port(String),
    /// The host is empty, or neither a literal nor a host name.
    #[error("address {0:?} has no usable host")]
    Host(String),
}

impl Address {
    /// The address as it was written, with IPv6 in its shortest form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Socket address of a literal; none for a host name.
    pub const fn socket(&self) -> Option<SocketAddr> {
        self.socket
    }

    /// Port, 1 to 65535.
    pub fn port(&self) -> u16 {
        let port = self.text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.unwrap_or_default()
    }

    /// Host without brackets.
    pub fn host(&self) -> &str {
        let host = self.text.rsplit_once(':').map_or(&*self.text, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if digits { port.parse::<u16>().unwrap_or(0) } else { 0 };
        if port == 0 {
            return Err(AddressError::Port(text.to_owned()));
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(socket.into());
        }
        if !is_host_name(host) {
            return Err(AddressError::Host(text.to_owned()));
        }
        Ok(Self { text: text.into(), socket: None })
    }
}

/// Host names as RFC 1123 has them, with `_` because container networks use it. All-digit labels at
/// the end are refused: they are misspelt IPv4 literals.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label) && !(last.bytes().all(|b| b.is_ascii_digit()))
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self { text: socket.to_string().into(), socket: Some(socket) }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Address {}

impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_host_names_are_addresses() {
        for good in ["10.0.0.1:80", "[2001:db8::7]:9000", "localhost:1", "svc-user-0.user:8080"] {
            let address: Address = good.parse().unwrap();
            assert_eq!(address.as_str(), good);
        }
        assert_eq!("[::1]:8".parse::<Address>().unwrap().host(), "::1");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            ":80",
            "a b:80",
            "1.2.3:80",
            "h:x",
            "::1:80",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
