//! What the key of a call is taken from.

use std::{fmt, str::FromStr};

use http::HeaderName;

/// Where a call says what it belongs to; written `header:NAME`, `path`, `cookie:NAME` or `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header, all of its values.
    Header(HeaderName),
    /// `:path` without a query.
    Path,
    /// A cookie.
    Cookie(String),
    /// The IP address of the application; none on a Unix socket.
    Source,
}

/// A text that names nothing that a key could be taken from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashOnError {
    /// None of the four.
    #[error("{0:?} is not what a key can be taken from")]
    Unknown(String),
    /// Not the name of a header.
    #[error("{0:?} is not the name of a header")]
    Header(String),
    /// A header that speaks to the proxy, but not of a key.
    #[error("header {0:?} is not looked at for a key")]
    Ours(String),
    /// Not the name of a cookie.
    #[error("{0:?} is not the name of a cookie")]
    Cookie(String),
}

impl HashOn {
    /// Header for nothing but the key, removed before the call goes on.
    pub const HEADER: HeaderName = HeaderName::from_static("pillion-hash-key");
    /// Which texts there are.
    pub const ALLOWED: &str = "\"header:NAME\", \"path\", \"cookie:NAME\", \"source\"";
}

impl Default for HashOn {
    fn default() -> Self {
        Self::Header(Self::HEADER)
    }
}

impl FromStr for HashOn {
    type Err = HashOnError;

    fn from_str(text: &str) -> Result<Self, HashOnError> {
        match (text, text.split_once(':')) {
            ("path", _) => Ok(Self::Path),
            ("source", _) => Ok(Self::Source),
            (_, Some(("header", name))) => {
                let header = name.parse::<HeaderName>();
                let header = header.map_err(|_| HashOnError::Header(name.to_owned()))?;
                if header.as_str().starts_with("pillion-") && header != Self::HEADER {
                    return Err(HashOnError::Ours(header.to_string()));
                }
                Ok(Self::Header(header))
            }
            // The name of a cookie is a token, as that of a header is (RFC 6265 section 4.1.1), but case counts.
            (_, Some(("cookie", name))) => match name.parse::<HeaderName>() {
                Ok(_) => Ok(Self::Cookie(name.to_owned())),
                Err(_) => Err(HashOnError::Cookie(name.to_owned())),
            },
            _ => Err(HashOnError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for HashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path => f.write_str("path"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Source => f.write_str("source"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for text in ["header:pillion-hash-key", "header:x-user", "path", "cookie:Session", "source"]
        {
            assert_eq!(text.parse::<HashOn>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse(), Ok(HashOn::Header("x-user".parse().unwrap())));
        assert_eq!(HashOn::default().to_string(), "header:pillion-hash-key");
    }

    #[test]
    fn what_no_key_can_be_taken_from_is_refused() {
        let refused = |text: &str| text.parse::<HashOn>().unwrap_err();
        assert_eq!(refused("user"), HashOnError::Unknown("user".to_owned()));
        assert_eq!(refused("header:"), HashOnError::Header(String::new()));
        assert_eq!(refused("header::path"), HashOnError::Header(":path".to_owned()));
        assert_eq!(refused("cookie:a b"), HashOnError::Cookie("a b".to_owned()));
        assert_eq!(refused("header:pillion-node"), HashOnError::Ours("pillion-node".to_owned()));
    }
}
