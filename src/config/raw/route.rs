//! The keys of `[[route]]`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use toml::Spanned;

use super::RawPolicy;
use crate::config::{
    HashOn,
    table::table,
    text::{
        AuthorityPattern, ChangedHeader, HeaderText, MatchedHeader, Method, PathPrefix, PlainText,
        ValuePattern,
    },
    value::{Count, PercentValue},
};
use crate::model::{GrpcStatus, Selectors, ServiceName};

table! {
    /// Rules for calls, by authority, path and headers; the first that matches wins, and all that it
    /// asks for must hold. Where none does, the authority, less its port, names the service. Every
    /// key of [defaults] may stand here, too: for these calls it wins over the service's.
    struct RawRoute {
        /// Authority that the rule is for: exact, "*.suffix" for all names below it, or "*" for
        /// any. Without a port it is for every port. Case does not matter. Default "*".
        authority: AuthorityPattern,
        /// Start of the path that the rule is for. Default: any.
        path_prefix: PathPrefix,
        /// Path that the rule is for, as a whole. Default: any.
        method: Method,
        /// Headers that must be there.
        headers: BTreeMap<MatchedHeader, ValuePattern>,
        /// Service that the calls go to. Required, unless every branch of `split` has one, or there
        /// is a `respond`.
        service: ServiceName,
        /// Several ways, of which each call goes one.
        split: Vec<Spanned<RawBranch>>,
        /// What of a call decides its way of `split`: calls with the same value go the same way, on
        /// every proxy. Calls without one, and all where this is not given, are divided by chance.
        split_on: HashOn,
        /// What is changed of the headers of a call.
        request_headers: RawHeaderChanges,
        /// Trouble made on purpose.
        fault: RawFault,
        /// Answers the calls here, instead of sending them anywhere.
        respond: RawRespond,
        ..policy: RawPolicy,
    }
}

table! {
    /// One way for the calls of a route; one table for each. They are taken by weight.
    struct RawBranch {
        /// Service of these calls, where it is not the one of the route.
        service: ServiceName,
        /// Endpoints that may be chosen, where they are not those of the route or service.
        filter: Arc<Selectors>,
        /// Share of the calls relative to its siblings. Required.
        weight: Count<0, 1_000_000>,
    }
}

table! {
    /// Changes of the headers of a call on its way to the endpoint, in this order. The names may not
    /// be those of pillion, gRPC or the connection.
    struct RawHeaderChanges {
        /// Headers that are taken off.
        remove: Vec<ChangedHeader>,
        /// Headers that are written instead of what is there.
        set: BTreeMap<ChangedHeader, HeaderText>,
        /// Headers that are written beside what is there.
        add: BTreeMap<ChangedHeader, HeaderText>,
    }
}

table! {
    /// Trouble made on purpose, to see how callers take it: a share of the calls is held up, a share
    /// aborted. Each share is drawn by itself; a call can be both. The deadline of a call goes on
    /// while it is held up.
    struct RawFault {
        /// How long a call is held up before an endpoint is chosen for it.
        delay: Duration,
        /// Share of the calls that is held up. Default 100.0.
        delay_percent: PercentValue,
        /// gRPC status that a call is aborted with; any other request gets the HTTP status that it
        /// stands for.
        abort: GrpcStatus,
        /// Share of the calls that is aborted. Default 100.0.
        abort_percent: PercentValue,
    }
}

table! {
    /// An answer of the proxy's own. At least one status is needed; the other one follows from it.
    struct RawRespond {
        /// Status of a gRPC call.
        grpc_status: GrpcStatus,
        /// Status of any other request.
        http_status: Count<200, 599>,
        /// Message of a gRPC call, body of the answer to any other request.
        message: PlainText,
    }
}
