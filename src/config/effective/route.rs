//! Routes, written back.

use std::collections::BTreeMap;

use http::HeaderName;
use toml::Spanned;

use crate::config::{
    raw::{RawBranch, RawFault, RawHeaderChanges, RawRespond, RawRoute},
    settings::{
        Action, Branch, DirectResponse, Fault, HeaderChanges, PathMatch, Route, RouteMatch,
    },
    table::Key,
    text::{
        AuthorityPattern, ChangedHeader, HeaderText, Method, PathPrefix, PlainText, ValuePattern,
    },
    value::{Count, PercentValue},
};

/// A key that is written where there is a value.
fn some<T>(value: Option<T>) -> Key<T> {
    value.map_or_else(Key::default, Key::from)
}

impl From<&Route> for RawRoute {
    fn from(route: &Route) -> Self {
        let Route { name: _, matches, action, policy, request_headers, fault } = route;
        let RouteMatch { authority, path, headers } = matches;
        let (path_prefix, method) = match path {
            PathMatch::Any => (None, None),
            PathMatch::Prefix(prefix) => (Some(PathPrefix(prefix.clone())), None),
            PathMatch::Method(method) => (None, Some(Method(method.clone()))),
        };
        let headers =
            headers.iter().map(|(name, value)| (name.into(), ValuePattern(value.clone())));
        let headers: BTreeMap<_, _> = headers.collect();
        let raw = Self {
            authority: AuthorityPattern(authority.clone()).into(),
            path_prefix: some(path_prefix),
            method: some(method),
            headers: some((!headers.is_empty()).then_some(headers)),
            request_headers: some(
                (*request_headers != HeaderChanges::default()).then(|| request_headers.into()),
            ),
            fault: some(fault.as_ref().map(RawFault::from)),
            policy: policy.0.clone(),
            ..Self::default()
        };
        match action {
            Action::Forward(service) => Self { service: service.clone().into(), ..raw },
            Action::Split(split) => {
                let branches = split.branches.iter().map(RawBranch::from);
                let branches = branches.map(|branch| Spanned::new(0..0, branch));
                Self {
                    service: some(split.service.clone()),
                    split: branches.collect::<Vec<_>>().into(),
                    split_on: some(split.on.clone()),
                    ..raw
                }
            }
            Action::Respond(respond) => Self { respond: RawRespond::from(respond).into(), ..raw },
        }
    }
}

impl From<&Branch> for RawBranch {
    fn from(Branch { service, filter, weight }: &Branch) -> Self {
        Self {
            service: some(service.clone()),
            filter: some(filter.clone()),
            weight: Count(*weight).into(),
        }
    }
}

impl From<&DirectResponse> for RawRespond {
    fn from(DirectResponse { grpc, http, message }: &DirectResponse) -> Self {
        Self {
            grpc_status: some(*grpc),
            http_status: some(http.map(|status| Count(status.into()))),
            message: PlainText(message.clone()).into(),
        }
    }
}

impl From<&Fault> for RawFault {
    fn from(Fault { delay, abort }: &Fault) -> Self {
        Self {
            delay: some(delay.map(|(delay, _)| delay)),
            delay_percent: some(delay.map(|(_, share)| PercentValue(share))),
            abort: some(abort.map(|(status, _)| status)),
            abort_percent: some(abort.map(|(_, share)| PercentValue(share))),
        }
    }
}

impl From<&HeaderChanges> for RawHeaderChanges {
    fn from(HeaderChanges { remove, set, add }: &HeaderChanges) -> Self {
        let written = |pairs: &[(HeaderName, String)]| {
            let pair = |(name, value): &(HeaderName, String)| {
                (ChangedHeader::from(name), HeaderText(value.clone()))
            };
            some((!pairs.is_empty()).then(|| pairs.iter().map(pair).collect::<BTreeMap<_, _>>()))
        };
        let remove: Vec<_> = remove.iter().map(ChangedHeader::from).collect();
        Self {
            remove: some((!remove.is_empty()).then_some(remove)),
            set: written(set),
            add: written(add),
        }
    }
}
