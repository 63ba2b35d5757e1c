//! Routes: what one key of a route means for the others.

use std::sync::Arc;

use http::HeaderName;
use toml::Spanned;

use super::{eject::not_of_a_route, note, tls};
use crate::config::{
    policy_keys::PolicyKeys,
    problem::Problems,
    raw::{RawBranch, RawFault, RawHeaderChanges, RawRespond, RawRoute},
    settings::{
        Action, Branch, DirectResponse, Fault, HeaderChanges, PathMatch, Percent, Route,
        RouteMatch, Split,
    },
    table::Key,
    text::{ChangedHeader, HeaderText},
    value::PercentValue,
};

/// The route of a table, which reports call `name`. None where it could not be used anyway.
pub(in crate::config) fn check_route(
    table: &Spanned<RawRoute>,
    name: &str,
    problems: &mut Problems,
) -> Option<Route> {
    let raw = table.get_ref();
    let matches = matches(table, problems);
    not_of_a_route(raw, problems);
    tls::check(&raw.policy, problems);
    let action = match raw.respond.get() {
        Some(respond) => {
            nothing_beside_respond(raw, problems);
            respond_with(respond, &raw.respond, problems)
        }
        None => forward(table, problems),
    };
    Some(Route {
        name: name.into(),
        matches,
        action: action?,
        policy: PolicyKeys(raw.policy.clone()),
        request_headers: raw.request_headers.get().map(changes).unwrap_or_default(),
        fault: raw.fault.get().and_then(|fault| self::fault(fault, &raw.fault, problems)),
    })
}

fn matches(table: &Spanned<RawRoute>, problems: &mut Problems) -> RouteMatch {
    let raw = table.get_ref();
    let no_headers = match &raw.headers {
        Key::Given(headers) => headers.get_ref().is_empty(),
        headers => headers.is_absent(),
    };
    let any_path = raw.path_prefix.is_absent() && raw.method.is_absent();
    if raw.authority.is_absent() && any_path && no_headers {
        let message = "route: would take every call; write `authority`, `path_prefix`, `method` \
                       or `headers`, or authority = \"*\" if that is meant";
        problems.note(table.span(), message);
    }
    if !raw.path_prefix.is_absent() {
        note(&raw.method, "route.method: there is a `path_prefix`; write one of them", problems);
    }
    let prefix = raw.path_prefix.get().map(|prefix| PathMatch::Prefix(prefix.0.clone()));
    let method = raw.method.get().map(|method| PathMatch::Method(method.0.clone()));
    let headers = raw.headers.get().into_iter().flatten();
    RouteMatch {
        authority: raw.authority.get().map_or("*", |pattern| pattern.as_ref()).to_owned(),
        path: method.or(prefix).unwrap_or_default(),
        headers: headers.map(|(name, pattern)| (name.name(), pattern.0.clone())).collect(),
    }
}

fn forward(table: &Spanned<RawRoute>, problems: &mut Problems) -> Option<Action> {
    let raw = table.get_ref();
    let Some(branches) = raw.split.get() else {
        if raw.split.is_absent() {
            note(&raw.split_on, "route.split_on: there is no `split` to decide", problems);
            if raw.service.is_absent() {
                problems.note(table.span(), "route: `service` is missing");
            }
        }
        return raw.service.get().cloned().map(Action::Forward);
    };
    let of_route = !raw.service.is_absent();
    let read = branches.iter().map(|branch| self::branch(branch, of_route, problems));
    let branches: Vec<_> = read.collect();
    if branches.is_empty() {
        note(&raw.split, "route.split: at least one branch is needed", problems);
    }
    let branches = branches.into_iter().collect::<Option<Vec<Branch>>>()?;
    if !branches.is_empty() && branches.iter().all(|branch| branch.weight == 0) {
        note(&raw.split, "route.split: at least one branch needs a weight above 0", problems);
    }
    let service = raw.service.get().cloned();
    Some(Action::Split(Split { service, on: raw.split_on.get().cloned(), branches }))
}

fn branch(table: &Spanned<RawBranch>, of_route: bool, problems: &mut Problems) -> Option<Branch> {
    let raw = table.get_ref();
    if raw.weight.is_absent() {
        problems.note(table.span(), "route.split: `weight` is missing");
    }
    if raw.service.is_absent() && !of_route {
        problems.note(table.span(), "route.split: `service` is missing, here or in the route");
    }
    Some(Branch {
        service: raw.service.get().cloned(),
        filter: raw.filter.get().map(Arc::clone),
        weight: raw.weight.get()?.0,
    })
}

/// What answers a call by itself leaves nothing for the keys that say where it goes.
fn nothing_beside_respond(raw: &RawRoute, problems: &mut Problems) {
    let policy = PolicyKeys(raw.policy.clone()).first();
    let others = [
        ("service", !raw.service.is_absent()),
        ("split", !raw.split.is_absent()),
        ("split_on", !raw.split_on.is_absent()),
        ("request_headers", !raw.request_headers.is_absent()),
        ("fault", !raw.fault.is_absent()),
    ];
    let mut others = others.into_iter().filter(|(_, given)| *given).map(|(name, _)| name);
    if let Some(name) = others.next().or(policy.as_deref()) {
        let message =
            format!("route.respond: the calls go nowhere, so there is no use for `{name}`");
        note(&raw.respond, message, problems);
    }
}

fn respond_with(
    raw: &RawRespond,
    key: &Key<RawRespond>,
    problems: &mut Problems,
) -> Option<Action> {
    if raw.grpc_status.is_absent() && raw.http_status.is_absent() {
        note(key, "route.respond: `grpc_status` or `http_status` is needed", problems);
    }
    let http = raw.http_status.get().and_then(|status| u16::try_from(status.0).ok());
    let message = raw.message.text();
    Some(Action::Respond(DirectResponse { grpc: raw.grpc_status.get().copied(), http, message }))
}

fn fault(raw: &RawFault, key: &Key<RawFault>, problems: &mut Problems) -> Option<Fault> {
    let share = |percent: &Key<PercentValue>| percent.get().map_or(Percent::ALL, |share| share.0);
    if raw.delay.is_absent() && raw.abort.is_absent() {
        note(key, "route.fault: `delay` or `abort` is needed", problems);
    }
    if raw.delay.is_absent() {
        note(&raw.delay_percent, "route.fault.delay_percent: there is no `delay`", problems);
    }
    if raw.abort.is_absent() {
        note(&raw.abort_percent, "route.fault.abort_percent: there is no `abort`", problems);
    }
    if raw.abort.get().is_some_and(|status| status.code() == 0) {
        note(
            &raw.abort,
            "route.fault.abort: OK aborts nothing; allowed: any other status",
            problems,
        );
    }
    let delay = raw.delay.get().map(|delay| (*delay, share(&raw.delay_percent)));
    let abort = raw.abort.get().map(|status| (*status, share(&raw.abort_percent)));
    Some(Fault { delay, abort })
}

fn changes(raw: &RawHeaderChanges) -> HeaderChanges {
    let written = |key: &Key<std::collections::BTreeMap<ChangedHeader, HeaderText>>| {
        let pair = |(name, value): (&ChangedHeader, &HeaderText)| (name.name(), value.0.clone());
        key.get().into_iter().flatten().map(pair).collect::<Vec<(HeaderName, String)>>()
    };
    let removed = raw.remove.get().into_iter().flatten();
    HeaderChanges {
        remove: removed.map(ChangedHeader::name).collect(),
        set: written(&raw.set),
        add: written(&raw.add),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::read::parse;

    /// The mistakes of a route that has an authority, as `LINE:COLUMN: message`.
    fn mistakes(keys: &str) -> Vec<String> {
        let text = format!("[[route]]\nauthority = \"a\"\n{keys}");
        let problems = parse(&text, Path::new("/")).unwrap_err();
        problems.iter().map(|p| format!("{}:{}: {}", p.line, p.column, p.message)).collect()
    }

    #[test]
    fn what_is_wrong_with_a_route_is_told_with_its_place() {
        for (keys, expected) in [
            ("service = \"s\"\nmethod = \"List\"", "4:10: route.method: \"List\" cannot be used"),
            (
                "service = \"s\"\npath_prefix = \"/a\"\nmethod = \"/a/b\"",
                "5:10: route.method: there is a `path_prefix`",
            ),
            (
                "service = \"s\"\nheaders = { pillion-node = \"a\" }",
                "4:13: route.headers: \"pillion-node\" cannot be used",
            ),
            (
                "service = \"s\"\nheaders = { x-a = \"a*b\" }",
                "4:19: route.headers.\"x-a\": \"a*b\" cannot be used",
            ),
            ("split = []", "3:9: route.split: at least one branch is needed"),
            ("split = [{ weight = 1 }]", "3:10: route.split: `service` is missing, here or in"),
            ("service = \"s\"\nsplit = [{}]", "4:10: route.split: `weight` is missing"),
            (
                "service = \"s\"\nsplit = [{ weight = 0 }]",
                "4:9: route.split: at least one branch needs a weight above 0",
            ),
            ("service = \"s\"\nsplit_on = \"path\"", "4:12: route.split_on: there is no `split`"),
            (
                "service = \"s\"\nsplit_on = \"user\"\nsplit = [{ weight = 1 }]",
                "4:12: route.split_on: \"user\" is not what a key can be taken from; allowed: \"header",
            ),
            ("service = \"s\"\nfault = {}", "4:9: route.fault: `delay` or `abort` is needed"),
            (
                "service = \"s\"\nfault = { delay = \"1s\", delay_percent = 101 }",
                "4:41: route.fault.delay_percent: found the number 101; allowed: a number from 0.0",
            ),
            (
                "service = \"s\"\nfault = { delay = \"1s\", abort_percent = 1 }",
                "4:41: route.fault.abort_percent: there is no `abort`",
            ),
            ("service = \"s\"\nfault.abort = \"OK\"", "4:15: route.fault.abort: OK aborts nothing"),
            (
                "service = \"s\"\nfault.abort = \"UNAVALABLE\"",
                "4:15: route.fault.abort: \"UNAVALABLE\" is unknown (did you mean \"UNAVAILABLE\"?)",
            ),
            (
                "respond = { message = \"a\" }",
                "3:11: route.respond: `grpc_status` or `http_status`",
            ),
            (
                "respond.http_status = 503\nservice = \"s\"",
                "3:1: route.respond: the calls go nowhere, so there is no use for `service`",
            ),
            (
                "respond.http_status = 503\nattempts = 1",
                "3:1: route.respond: the calls go nowhere, so there is no use for `attempts`",
            ),
            (
                "service = \"s\"\nrequest_headers.set = { grpc-timeout = \"1S\" }",
                "4:25: route.request_headers.set: \"grpc-timeout\" cannot be used",
            ),
            (
                "service = \"s\"\nrequest_headers.remove = [\"pillion-caller\"]",
                "4:27: route.request_headers.remove: \"pillion-caller\" cannot be used",
            ),
            (
                "service = \"s\"\nrequest_headers.add = { a-bin = \"AA\", \":path\" = \"/\" }",
                "4:25: route.request_headers.add: \"a-bin\" cannot be used",
            ),
            (
                "service = \"s\"\natempts = 1",
                "4:1: unknown key \"atempts\" in [[route]], did you mean",
            ),
            (
                "service = \"s\"\neject.base = \"1s\"",
                "4:1: route.eject: is about the endpoints of a service, not about calls; allowed in",
            ),
            (
                "service = \"s\"\n[route.health]\nkind = \"tcp\"",
                "4:1: route.health: is about the endpoints of a service",
            ),
            ("service = \"s\"\nattempts = 0", "4:12: route.attempts: found the number 0"),
        ] {
            let found = mistakes(keys);
            assert!(found[0].starts_with(expected), "{keys}: {found:#?}");
        }
    }

    #[test]
    fn an_unknown_key_of_a_route_lists_those_of_policy_too() {
        let found = mistakes("service = \"s\"\nnonsense = 1");
        assert!(found[0].contains("split_on") && found[0].contains("connect_timeout"), "{found:?}");
    }
}
