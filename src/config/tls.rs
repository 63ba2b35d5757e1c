//! TLS as configured: towards applications, and towards endpoints.
//!
//! Only names of files are here; [`crate::tls`] reads them, and reads them again.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::{text::Word, value::Text};
use crate::model::{CertificateName, CertificateNameError};

/// How a listener speaks TLS, or the admin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Its certificate, followed by the chain, PEM.
    pub cert: PathBuf,
    /// The key of the certificate, PEM.
    pub key: PathBuf,
    /// Authorities of which whoever connects must have a certificate; none lets everybody in.
    pub client_ca: Option<PathBuf>,
    /// Names of which that certificate must carry one; empty for any.
    pub allow: Vec<CertificateName>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// How endpoints are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointTls {
    /// Whether TLS is spoken.
    pub mode: TlsMode,
    /// Authorities that sign for endpoints; none for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key of our own; none for none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that is asked for, and that the certificate must carry; none for the endpoint's host name,
    /// else the service's.
    pub server_name: Option<ServerName<'static>>,
    /// Names of which the certificate must carry one, instead of the one that is asked for.
    pub verify: Vec<CertificateName>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl EndpointTls {
    /// Whether TLS is spoken to an endpoint whose record says that it speaks it, or not.
    pub const fn is_spoken(&self, by_record: bool) -> bool {
        match self.mode {
            TlsMode::Auto => by_record,
            TlsMode::On => true,
            TlsMode::Off => false,
        }
    }
}

/// Whether TLS is spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// As the endpoint's record says.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always, whatever a record says.
    On,
}

impl Word for TlsMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("off", Self::Off), ("on", Self::On)];
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    V1_2,
    /// 1.3 (RFC 8446).
    #[default]
    V1_3,
}

impl Word for TlsVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("1.3", Self::V1_3), ("1.2", Self::V1_2)];
}

impl Text for CertificateName {
    fn allowed() -> String {
        Self::ALLOWED.to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|wrong: CertificateNameError| wrong.to_string())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A host name or address to ask for; the empty text says nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct AskedName(pub(super) Option<ServerName<'static>>);

impl Text for AskedName {
    fn allowed() -> String {
        "a host name or an address; \"\" for the default".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        match ServerName::try_from(text.to_owned()) {
            Ok(name) => Ok(Self(Some(name))),
            Err(_) => Self::refuse(&format!("{text:?} is no host name")),
        }
    }

    fn to_text(&self) -> String {
        self.0.as_ref().map(|name| name.to_str().into_owned()).unwrap_or_default()
    }
}
