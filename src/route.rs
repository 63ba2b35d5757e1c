//! From `:authority`, path and headers to a service: the first decision of a call.
//!
//! Pure: the path of a call and `GET /why` ask the same function.

use std::sync::Arc;

use crate::{
    config::{Route, Settings},
    model::{Selectors, ServiceName, ServiceNameError},
};

pub use crate::model::without_port;

/// What a caller says about where a call should go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `:authority`, or `host` where there is none.
    pub authority: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// Header `pillion-service`.
    pub service: Option<&'a str>,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed<'a> {
    /// Name of the service, checked.
    pub service: &'a str,
    /// Node that the authority pins the call to: `service@node`.
    pub node: Option<&'a str>,
    /// Filter of the route, where it has one.
    pub filter: Option<&'a Arc<Selectors>>,
    /// The route that decided, where one did.
    pub route: Option<&'a Route>,
}

/// Decides: header `pillion-service`, then the first matching route, then the authority itself.
///
/// # Errors
/// The name that was found is not a service name.
pub fn route<'a>(settings: &'a Settings, asked: Asked<'a>) -> Result<Routed<'a>, ServiceNameError> {
    let (authority, node) = split_node(asked.authority);
    if let Some(service) = asked.service {
        ServiceName::check(service)?;
        return Ok(Routed { service, node, filter: None, route: None });
    }
    if let Some(route) = settings.routes.iter().find(|route| route.matches(authority, asked.path)) {
        let service = route.service.as_str();
        return Ok(Routed { service, node, filter: route.filter.as_ref(), route: Some(route) });
    }
    let service = without_port(authority);
    ServiceName::check(service)?;
    Ok(Routed { service, node, filter: None, route: None })
}

/// `service@node` to both parts. The authority goes on without the node: RFC 9113 section 8.3.1
/// forbids user information there.
pub fn split_node(authority: &str) -> (&str, Option<&str>) {
    match authority.split_once('@') {
        Some((service, node)) => (service, Some(node)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::{AccessLog, Node, Policy, SocketPath};

    fn settings(routes: Vec<Route>) -> Settings {
        Settings {
            workers: 1,
            drain_timeout: std::time::Duration::ZERO,
            access_log: AccessLog::Off,
            node: Node::default(),
            listeners: Vec::new(),
            admin: SocketPath::Tcp(([127, 0, 0, 1], 0).into()),
            sources: Vec::new(),
            defaults: Arc::new(Policy::default()),
            services: HashMap::new(),
            routes,
        }
    }

    fn to(service: &str, authority: &str, path_prefix: Option<&str>) -> Route {
        Route {
            authority: authority.to_owned(),
            path_prefix: path_prefix.map(str::to_owned),
            service: service.parse().unwrap(),
            filter: None,
        }
    }

    fn service(settings: &Settings, authority: &str, path: &str) -> Option<String> {
        let asked = Asked { authority, path, service: None };
        route(settings, asked).ok().map(|routed| routed.service.to_owned())
    }

    #[test]
    fn without_a_route_the_authority_less_node_and_port_is_the_service() {
        let settings = settings(vec![]);
        for (authority, expected) in [
            ("Orders.v1", Some("Orders.v1")),
            ("orders:443", Some("orders")),
            ("orders@10.0.0.1:80", Some("orders")),
            ("orders:443@node-1", Some("orders")),
            ("team~orders", Some("team~orders")),
            ("orders:v1", None),
            ("[::1]:80", None),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(
                service(&settings, authority, "/"),
                expected.map(str::to_owned),
                "{authority}"
            );
        }
        let asked = Asked { authority: "orders@10.0.0.1:80", ..Asked::default() };
        assert_eq!(route(&settings, asked).unwrap().node, Some("10.0.0.1:80"));
    }

    #[test]
    fn the_first_matching_route_wins_and_the_header_wins_over_routes() {
        let settings = settings(vec![
            to("orders", "orders.internal:8443", Some("/orders.v1.")),
            to("legacy", "orders.internal:8443", None),
            to("rest", "*.internal", None),
        ]);
        let service = |authority, path| service(&settings, authority, path).unwrap();
        assert_eq!(service("Orders.Internal:8443", "/orders.v1.Orders/Get"), "orders");
        assert_eq!(service("orders.internal:8443", "/other"), "legacy");
        assert_eq!(service("a.b.internal", "/x"), "rest");
        assert_eq!(service(".internal", "/x"), ".internal");
        let asked = Asked { authority: "a.internal", path: "/", service: Some("pay") };
        assert_eq!(route(&settings, asked).unwrap().service, "pay");
    }
}
