//! Why there is no TLS connection, for people and for metrics.

use std::{
    io,
    time::{Duration, SystemTime},
};

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, pki_types::UnixTime};

use super::verify::NoneOfNames;

/// Why there is no TLS connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({})", .why.as_str())]
pub struct Failure {
    /// In one word.
    pub why: Why,
    /// In some more.
    pub text: String,
}

/// Why there is no TLS connection, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It was not done in time.
    Timeout,
    /// The peer broke off.
    Closed,
    /// The peer does not speak TLS.
    NotTls,
    /// There is no version, or no cipher, that both speak.
    Version,
    /// HTTP/2 was not agreed on.
    NoAlpn,
    /// The peer has no certificate.
    NoCertificate,
    /// The peer's certificate is of an authority that is not believed.
    UnknownCa,
    /// The peer's certificate is out of date.
    Expired,
    /// The peer's certificate is not good yet.
    NotYetValid,
    /// The peer's certificate is for others.
    WrongName,
    /// There is something else with the peer's certificate.
    BadCertificate,
    /// The peer wants a certificate of ours.
    PeerWantsCertificate,
    /// The peer does not believe the authority of our certificate.
    PeerUnknownCa,
    /// The peer says that our certificate is out of date.
    PeerExpired,
    /// The peer does not accept our certificate for another reason, its names most likely.
    PeerRefused,
    /// Our own files cannot be used.
    Files,
    /// Too many others are at it.
    Busy,
    /// Anything else.
    Other,
}

impl Why {
    /// Value of the metric label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::NoAlpn => "no_alpn",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::BadCertificate => "bad_certificate",
            Self::PeerWantsCertificate => "peer_wants_certificate",
            Self::PeerUnknownCa => "peer_unknown_ca",
            Self::PeerExpired => "peer_expired",
            Self::PeerRefused => "peer_refused",
            Self::Files => "files",
            Self::Busy => "busy",
            Self::Other => "other",
        }
    }
}

impl Failure {
    pub(super) fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }

    /// It was not done within `limit`.
    pub fn late(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::new(Why::Timeout, format!("no handshake within {limit}"))
    }

    /// What rustls, or the system, says of a connection.
    pub fn of(error: &io::Error) -> Self {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::of_tls(error);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => {
                Self::new(Why::Closed, "it broke off during the handshake")
            }
            _ => Self::new(Why::Other, error.to_string()),
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoCertificatesPresented => {
                Self::new(Why::NoCertificate, "it presented no certificate")
            }
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::NoApplicationProtocol => {
                Self::new(Why::NoAlpn, "it does not offer HTTP/2 by ALPN (\"h2\")")
            }
            Error::PeerIncompatible(what) => Self::of_incompatible(what),
            Error::InvalidMessage(_) => Self::new(Why::NotTls, "what it sent is not TLS"),
            other => Self::new(Why::Other, other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::ExpiredContext { not_after, .. } => {
                Self::new(Why::Expired, format!("its certificate expired on {}", date(*not_after)))
            }
            E::Expired => Self::new(Why::Expired, "its certificate has expired"),
            E::NotValidYetContext { not_before, .. } => {
                let text = format!("its certificate is good from {} on", date(*not_before));
                Self::new(Why::NotYetValid, text)
            }
            E::NotValidYet => Self::new(Why::NotYetValid, "its certificate is not good yet"),
            E::UnknownIssuer => Self::new(
                Why::UnknownCa,
                "its certificate leads to no authority that is believed here",
            ),
            E::Other(other) if other.0.is::<NoneOfNames>() => {
                Self::new(Why::WrongName, other.0.to_string())
            }
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::new(
                Why::BadCertificate,
                format!("its certificate is for other uses: {error}"),
            ),
            other => Self::new(Why::BadCertificate, format!("its certificate is bad: {other}")),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        use AlertDescription as A;
        match alert {
            A::CertificateRequired => Self::new(
                Why::PeerWantsCertificate,
                "it wants a certificate of ours, and none is configured",
            ),
            A::UnknownCA => Self::new(
                Why::PeerUnknownCa,
                "it does not believe the authority of our certificate",
            ),
            A::CertificateExpired => {
                Self::new(Why::PeerExpired, "it says that our certificate has expired")
            }
            A::BadCertificate
            | A::CertificateUnknown
            | A::AccessDenied
            | A::UnsupportedCertificate
            | A::CertificateRevoked => Self::new(
                Why::PeerRefused,
                format!("it does not accept our certificate ({alert:?}): its names, most likely"),
            ),
            A::NoApplicationProtocol => {
                Self::new(Why::NoAlpn, "it does not speak HTTP/2 by ALPN (\"h2\")")
            }
            A::ProtocolVersion => {
                Self::new(Why::Version, "it speaks no version of TLS that is allowed here")
            }
            A::HandshakeFailure => Self::new(
                Why::Version,
                "it found nothing in common, or wants a certificate (HandshakeFailure)",
            ),
            other => Self::new(Why::Other, format!("it ended the handshake: {other:?}")),
        }
    }

    fn of_incompatible(what: &PeerIncompatible) -> Self {
        use PeerIncompatible as P;
        let text = match what {
            P::SupportedVersionsExtensionRequired
            | P::ServerDoesNotSupportTls12Or13
            | P::ServerTlsVersionIsDisabledByOurConfig
            | P::Tls12NotOffered
            | P::Tls12NotOfferedOrEnabled => {
                "it speaks no version of TLS that is allowed here (see `min_version`)".to_owned()
            }
            other => format!("it has nothing in common with us: {other:?}"),
        };
        Self::new(Why::Version, text)
    }
}

fn date(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
