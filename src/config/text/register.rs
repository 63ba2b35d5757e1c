//! The strings of `[[register]]`.

use std::time::Duration;

use super::{Text, Word};
use crate::config::register::Register;
use crate::model::{Address, AddressError};

/// How a registration is asked whether it is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::config) enum HealthKind {
    #[default]
    Grpc,
    Tcp,
    Http,
    Exec,
    None,
}

impl Word for HealthKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("grpc", Self::Grpc),
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("exec", Self::Exec),
        ("none", Self::None),
    ];
}

/// How long a lease lives.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Ttl(pub(in crate::config) Duration);

impl Text for Ttl {
    fn allowed() -> String {
        format!("{}, at least \"2s\"", Duration::allowed())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match Duration::from_text(text)? {
            ttl if ttl < Register::MIN_TTL => Self::refuse(&format!("{text:?} is too short")),
            ttl => Ok(Self(ttl)),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_text()
    }
}

impl Text for Address {
    fn allowed() -> String {
        "host:port, such as \"10.0.0.5:9000\" or \"[2001:db8::5]:9000\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().or_else(|wrong: AddressError| Self::refuse(&wrong.to_string()))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// URL of a page without TLS.
#[derive(Clone, Debug)]
pub(in crate::config) struct HttpUrl(pub(in crate::config) http::Uri);

impl Text for HttpUrl {
    fn allowed() -> String {
        "a URL such as \"http://127.0.0.1:8080/health\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let has_host = |uri: &http::Uri| uri.host().is_some_and(|host| !host.is_empty());
        match text.parse::<http::Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && has_host(&uri) => Ok(Self(uri)),
            _ => Self::refuse(&format!("{text:?} cannot be used")),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}
