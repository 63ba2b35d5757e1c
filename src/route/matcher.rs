//! Which calls take a route.

use http::{HeaderMap, HeaderName};

use crate::{
    config::{PathMatch, RouteMatch, ValueMatch},
    model::without_port,
};

/// Compares calls with what one route asks for: the cheapest question first.
#[derive(Debug)]
pub(super) struct Matcher {
    authority: Authority,
    /// The pattern has no port, so it is for every port: gRPC clients send the one that they dialled.
    any_port: bool,
    path: PathMatch,
    headers: Vec<(HeaderName, ValueMatch)>,
}

#[derive(Debug)]
enum Authority {
    Any,
    Exact(Box<str>),
    /// From the dot on: one or more labels stand before it.
    Below(Box<str>),
}

impl Matcher {
    pub(super) fn new(route: &RouteMatch) -> Self {
        let pattern = &*route.authority;
        let authority = match pattern.strip_prefix('*') {
            Some("") => Authority::Any,
            Some(suffix) => Authority::Below(suffix.into()),
            None => Authority::Exact(pattern.into()),
        };
        Self {
            authority,
            any_port: without_port(pattern) == pattern,
            path: route.path.clone(),
            headers: route.headers.clone(),
        }
    }

    /// Whether all of it holds for a call. `host` is `authority` without its port.
    pub(super) fn matches(
        &self,
        authority: &str,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> bool {
        let authority = if self.any_port { host } else { authority };
        self.authority.matches(authority)
            && match &self.path {
                PathMatch::Any => true,
                PathMatch::Prefix(prefix) => path.starts_with(&**prefix),
                PathMatch::Method(method) => path == method,
            }
            && self.headers.iter().all(|(name, wanted)| {
                headers.get_all(name).iter().any(|value| holds(wanted, value.as_bytes()))
            })
    }
}

impl Authority {
    /// Authorities compare without regard to case (RFC 9110 section 4.2.3).
    fn matches(&self, authority: &str) -> bool {
        let asked = authority.as_bytes();
        match self {
            Self::Any => true,
            Self::Exact(exact) => asked.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below(suffix) => {
                asked.len() > suffix.len()
                    && asked[asked.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }
}

fn holds(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Any => true,
        ValueMatch::Prefix(start) => value.starts_with(start.as_bytes()),
        ValueMatch::Exact(exact) => value == exact.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, authority: &str) -> bool {
        let path = PathMatch::Any;
        let route = RouteMatch { authority: pattern.to_owned(), path, headers: Vec::new() };
        let matcher = Matcher::new(&route);
        matcher.matches(authority, without_port(authority), "/", &HeaderMap::new())
    }

    #[test]
    fn a_pattern_is_exact_or_takes_all_names_below_it() {
        assert!(matches("orders.internal", "Orders.Internal"));
        assert!(!matches("orders.internal", "my.orders.internal"));
        assert!(matches("*.internal", "a.b.INTERNAL"));
        assert!(!matches("*.internal", ".internal") && !matches("*.internal", "internal"));
        assert!(matches("*", "") && matches("*", "a:1"));
    }

    #[test]
    fn a_pattern_without_a_port_is_for_every_port() {
        assert!(matches("*.internal", "orders.internal:8443"));
        assert!(matches("orders", "orders:8443") && matches("[::1]", "[::1]:8443"));
        assert!(matches("orders:8443", "orders:8443"));
        assert!(!matches("orders:8443", "orders:80") && !matches("orders:8443", "orders"));
        assert!(
            matches("*.internal:80", "a.internal:80") && !matches("*.internal:80", "a.internal")
        );
    }

    #[test]
    fn a_path_is_compared_whole_or_by_its_start() {
        let matches = |path, asked| {
            let route = RouteMatch { authority: "*".to_owned(), path, headers: Vec::new() };
            Matcher::new(&route).matches("a", "a", asked, &HeaderMap::new())
        };
        let prefix = || PathMatch::Prefix("/orders.v1.".to_owned());
        let method = || PathMatch::Method("/orders.v1.Orders/List".to_owned());
        assert!(matches(prefix(), "/orders.v1.Orders/List"));
        assert!(!matches(prefix(), "/orders.v2.Orders/List"));
        assert!(matches(method(), "/orders.v1.Orders/List"));
        assert!(!matches(method(), "/orders.v1.Orders/ListAll"));
    }

    #[test]
    fn every_header_must_be_there_and_one_of_its_values_must_fit() {
        let headers: HeaderMap = [("x-user", "test"), ("x-tag", "one"), ("x-tag", "canary-7")]
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .into_iter()
            .collect();
        let matches = |wanted: &[(&'static str, ValueMatch)]| {
            let wanted = wanted.iter().cloned();
            let route = RouteMatch {
                authority: "*".to_owned(),
                path: PathMatch::Any,
                headers: wanted
                    .map(|(name, value)| (HeaderName::from_static(name), value))
                    .collect(),
            };
            Matcher::new(&route).matches("a", "a", "/", &headers)
        };
        let exact = |text: &str| ValueMatch::Exact(text.to_owned());
        let prefix = |text: &str| ValueMatch::Prefix(text.to_owned());
        assert!(matches(&[("x-user", exact("test")), ("x-tag", prefix("canary-"))]));
        assert!(matches(&[("x-tag", ValueMatch::Any)]));
        assert!(!matches(&[("x-user", exact("test")), ("x-none", ValueMatch::Any)]));
        assert!(!matches(&[("x-user", exact("Test"))]) && !matches(&[("x-user", exact("tes"))]));
        assert!(!matches(&[("x-tag", prefix("canary-8"))]));
    }
}
