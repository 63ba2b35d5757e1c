//! One route, worked out for the path of a call.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    Asked,
    changes::Changes,
    matcher::Matcher,
    split::{Split, Way},
};
use crate::config::{self, DirectResponse, Fault, Route, RouteMatch, Settings};

/// One route, worked out. Calls that take it share it.
#[derive(Debug)]
pub struct Rule {
    route: Route,
    matcher: Matcher,
    action: Action,
    changes: Changes,
}

#[derive(Debug)]
pub(super) enum Action {
    Forward(Split),
    Respond(DirectResponse),
}

impl Rule {
    pub(super) fn new(route: &Route, settings: &Settings) -> Self {
        let action = match (&route.action, Split::new(route, settings)) {
            (config::Action::Respond(respond), _) => Action::Respond(respond.clone()),
            (_, Some(split)) => Action::Forward(split),
            // A split without a way, which is refused when it is read: an honest answer, no panic.
            (_, None) => Action::Respond(DirectResponse {
                grpc: None,
                http: Some(503),
                message: "the route leads nowhere".to_owned(),
            }),
        };
        Self {
            route: route.clone(),
            matcher: Matcher::new(&route.matches),
            action,
            changes: Changes::new(&route.request_headers),
        }
    }

    /// What reports call it: its place in the file, such as `#2`, or its key in etcd.
    pub const fn name(&self) -> &Arc<str> {
        &self.route.name
    }

    /// Which calls take it, as it is configured.
    pub const fn asks_for(&self) -> &RouteMatch {
        &self.route.matches
    }

    /// The ways its calls go; none where it answers them itself.
    pub fn ways(&self) -> &[Way] {
        match &self.action {
            Action::Forward(split) => split.ways(),
            Action::Respond(_) => &[],
        }
    }

    /// Whether it has limits of its own: its calls are then counted by themselves.
    pub const fn has_limits(&self) -> bool {
        self.route.policy.has_limits()
    }

    /// Trouble to be made for its calls.
    pub const fn fault(&self) -> Option<&Fault> {
        self.route.fault.as_ref()
    }

    /// Changes the headers of a call that takes it.
    pub fn change(&self, headers: &mut HeaderMap) {
        self.changes.make(headers);
    }

    /// `host` is `authority` without its port.
    pub(super) fn matches(&self, authority: &str, host: &str, asked: &Asked<'_>) -> bool {
        self.matcher.matches(authority, host, asked.path, asked.headers)
    }

    pub(super) const fn action(&self) -> &Action {
        &self.action
    }
}
