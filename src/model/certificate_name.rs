//! Names that the certificate of a peer must carry.

use std::{fmt, str::FromStr, sync::Arc};

/// A name that the certificate of a peer must carry: a DNS name, an address, or a URI such as a SPIFFE
/// ID, which may end with `*` for any rest. Cloning is a reference-count increment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateName(Arc<str>);

/// A text that is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a certificate; allowed: {allowed}", allowed = CertificateName::ALLOWED)]
pub struct CertificateNameError(String);

impl CertificateName {
    /// Which texts are names.
    pub const ALLOWED: &str = "a DNS name, an address, or a URI such as \"spiffe://prod/ns/shop/*\" \
                               (`*` only at its end, after the trust domain)";

    /// Whether a certificate that is for `name` is for this one, too. DNS names are compared without
    /// regard to case, and one that begins with `*.` stands for every first label; all else is compared
    /// byte for byte.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => name
                .strip_prefix(start)
                .is_some_and(|rest| !rest.is_empty() && has_no_dot_segment(name)),
            None if self.0.contains("://") => name == &*self.0,
            None => {
                let any_label = |host: &str| {
                    let (_, host) = host.split_once('.')?;
                    Some(host.eq_ignore_ascii_case(name.strip_prefix("*.")?))
                };
                name.eq_ignore_ascii_case(&self.0) || any_label(&self.0) == Some(true)
            }
        }
    }
}

/// No SPIFFE ID has one, and what matched the start would lead elsewhere.
fn has_no_dot_segment(uri: &str) -> bool {
    !uri.split('/').any(|segment| segment == "." || segment == "..")
}

impl FromStr for CertificateName {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, CertificateNameError> {
        let is_printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let has_place = match text.split_once("://") {
            Some((scheme, rest)) => {
                let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
                let star_at_end = !path.strip_suffix('*').unwrap_or(path).contains('*');
                !scheme.is_empty()
                    && !domain.is_empty()
                    && !format!("{scheme}{domain}").contains('*')
                    && star_at_end
            }
            None => !text.contains(['*', '/', '@']),
        };
        match is_printable && has_place {
            true => Ok(Self(text.into())),
            false => Err(CertificateNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<CertificateName>().unwrap().matches(name)
    }

    #[test]
    fn a_spiffe_id_is_matched_whole_or_by_its_start() {
        let id = "spiffe://prod/ns/shop/sa/cart";
        assert!(matches(id, id));
        assert!(matches("spiffe://prod/ns/shop/*", id));
        assert!(matches("spiffe://prod/*", id));
        for pattern in [
            "spiffe://prod/ns/shop/sa/car",
            "spiffe://prod/ns/shop/sa/cart/*",
            "spiffe://prod/ns/sho/*",
            "spiffe://other/*",
            "spiffe://PROD/ns/shop/*",
        ] {
            assert!(!matches(pattern, id), "{pattern}");
        }
        assert!(!matches("spiffe://prod/ns/shop/*", "spiffe://prod/ns/shop/"));
        assert!(!matches("spiffe://prod/ns/shop/*", "spiffe://prod/ns/shop/../admin/sa"));
        assert!(!matches("spiffe://prod/*", "spiffe://prod.evil/ns"));
    }

    #[test]
    fn a_dns_name_is_matched_without_regard_to_case_and_by_a_wildcard_of_the_certificate() {
        assert!(matches("orders.internal", "Orders.Internal"));
        assert!(matches("orders.internal", "*.internal"));
        assert!(matches("10.0.0.1", "10.0.0.1"));
        for name in ["internal", "a.orders.internal", "*.orders.internal", "*internal", "*", ""] {
            assert!(!matches("orders.internal", name), "{name}");
        }
    }

    #[test]
    fn a_star_stands_only_at_the_end_of_a_uri_behind_its_trust_domain() {
        for text in [
            "",
            "a b",
            "*",
            "*.internal",
            "spiffe://*",
            "spiffe://pr*/a",
            "spiffe://prod/*/a",
            "://a",
            "a/b",
            "u@a",
        ] {
            assert!(text.parse::<CertificateName>().is_err(), "{text}");
        }
        for text in ["spiffe://prod", "spiffe://prod/*", "spiffe://prod/ns/a*", "a", "https://a/b"]
        {
            assert_eq!(text.parse::<CertificateName>().unwrap().to_string(), text);
        }
    }
}
