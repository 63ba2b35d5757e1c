//! From `:authority`, path and headers to a service: the first decision of a call.
//!
//! Pure, but for the chance that divides the calls of a split. The path of a call and `GET /why` ask
//! the same function. Routes are worked out once for each change of the settings, so that a call only
//! compares; without any route it does not even that.

mod changes;
mod key;
mod matcher;
mod rule;
mod split;

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;

use crate::{
    config::{DirectResponse, Settings},
    model::{ServiceName, ServiceNameError},
};

pub use crate::model::without_port;
pub use key::{Shown, key};
pub use rule::Rule;
pub use split::Way;

/// What a caller says about where a call should go.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `:authority`, or `host` where there is none.
    pub authority: &'a str,
    /// `:path`, without a query.
    pub path: &'a str,
    /// Header `pillion-service`.
    pub service: Option<&'a str>,
    /// All other headers.
    pub headers: &'a HeaderMap,
    /// Hash of the header `pillion-hash-key`.
    pub hash_key: Option<u64>,
    /// Address of the application.
    pub source: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    /// What of it a key may be taken from.
    pub const fn shown(&self) -> Shown<'a> {
        let Self { path, headers, hash_key, source, .. } = *self;
        Shown { headers, path, hash_key, source }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// It goes to a service.
    Forward(Routed<'a>),
    /// The proxy answers it, by this rule.
    Respond(&'a Rule, &'a DirectResponse),
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// Name of the service, checked.
    pub service: &'a str,
    /// Node that the authority pins the call to: `service@node`.
    pub node: Option<&'a str>,
    /// The rule that decided and the way that it gave the call, where one did.
    pub rule: Option<(&'a Arc<Rule>, &'a Way)>,
}

/// All routes, worked out.
#[derive(Debug, Default)]
pub struct Routes(Vec<Arc<Rule>>);

impl Routes {
    /// Those of `settings`, each with the policy that its calls have.
    pub fn new(settings: &Settings) -> Self {
        Self(settings.routes.iter().map(|route| Arc::new(Rule::new(route, settings))).collect())
    }

    /// Decides: header `pillion-service`, then the first matching route, then the authority itself.
    ///
    /// # Errors
    /// The name that was found is not a service name.
    pub fn decide<'a>(&'a self, asked: Asked<'a>) -> Result<Decision<'a>, ServiceNameError> {
        let (authority, node) = split_node(asked.authority);
        let plain = |service| Decision::Forward(Routed { service, node, rule: None });
        if let Some(service) = asked.service {
            ServiceName::check(service)?;
            return Ok(plain(service));
        }
        let service = without_port(authority);
        let matching = |rule: &&Arc<Rule>| rule.matches(authority, service, &asked);
        if let Some(rule) = self.0.iter().find(matching) {
            return Ok(match rule.action() {
                rule::Action::Respond(respond) => Decision::Respond(rule, respond),
                rule::Action::Forward(split) => {
                    let way = split.choose(&asked);
                    let service = way.service.as_str();
                    Decision::Forward(Routed { service, node, rule: Some((rule, way)) })
                }
            });
        }
        ServiceName::check(service)?;
        Ok(plain(service))
    }
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
mod tests;
