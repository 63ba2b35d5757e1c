//! What a certificate says of itself.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// What a certificate says of itself: whose it is, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// DNS names, addresses and URIs (SPIFFE IDs among them) that it is for, in its order.
    pub names: Vec<String>,
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a certificate in DER; none for what is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let names = match certificate.get_extension::<SubjectAltName>().ok()? {
            Some((_, names)) => names.0.iter().filter_map(name).collect(),
            None => Vec::new(),
        };
        let validity = certificate.validity();
        Some(Self {
            names,
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
        })
    }

    /// How long it is still good; none once it is not.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok()
    }

    /// Whether so little of its life is left that somebody should renew it: a third.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.left(now).is_none_or(|left| left <= life / 3)
    }

    /// The names, for people.
    pub fn told(&self) -> String {
        if self.names.is_empty() { "no name".to_owned() } else { self.names.join(", ") }
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
