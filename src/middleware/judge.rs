//! What the end of an attempt tells of its endpoint: whether it works.
//!
//! Said once an attempt, by whoever sees its end. Costs a look where a service ejects nobody.

use std::sync::Arc;

use http::StatusCode;

use crate::{
    call::{CallMeta, Kind, Outcome, Reply, is_foreign},
    clock,
    metrics::AttemptOutcome,
    model::{Endpoint, GrpcStatus, InFlight, Reason, Served, Sick, Told},
    wards::Reports,
};

/// An answer has begun. Of an endpoint that is being tried that is enough, if it is none that says how
/// the call ended: a stream may go on for hours.
pub(super) fn answered(meta: &CallMeta, reply: &Reply) {
    if meta.target().policy.eject.is_off() {
        return;
    }
    let works = reply.head.status == StatusCode::OK && reply.exchange.status().is_none();
    if works {
        let endpoint = meta.endpoint();
        endpoint.load.history().answered();
        if endpoint.load.is(Sick::Ejected) {
            tell_trial(meta, &endpoint, || Told::Works(served(meta)));
        }
    }
}

/// The attempt ended without an answer. Its place on the endpoint is still held.
pub(super) fn failed(meta: &CallMeta, outcome: AttemptOutcome) {
    match outcome {
        AttemptOutcome::Cancelled | AttemptOutcome::Ok => {}
        AttemptOutcome::ConnectFailed
        | AttemptOutcome::ConnectTimeout
        | AttemptOutcome::Refused
        | AttemptOutcome::Reset => tell(meta, Told::Broke),
    }
}

/// The attempt took longer than an attempt may.
pub(super) fn timed_out(meta: &CallMeta) {
    tell(meta, Told::Late);
}

/// The attempt was answered with a status after which the call is tried again.
pub(super) fn rejected(meta: &CallMeta, reply: &mut Reply, status: GrpcStatus) {
    let headers = match reply.exchange.ending() {
        Some(trailers) => trailers,
        None => &mut reply.head.headers,
    };
    meta.is_foreign.set(is_foreign(status, headers));
    let http = reply.head.status.as_u16();
    if let Some(told) = said(meta, http, status.code()) {
        tell(meta, told);
    }
}

/// The call ended with the attempt that it was on.
pub(super) fn ended(meta: &CallMeta, outcome: Outcome) {
    if meta.target.get().is_none_or(|target| target.policy.eject.is_off()) {
        return;
    }
    let told = match outcome {
        Outcome::Answered { http, grpc } => said(meta, http, grpc.code()),
        Outcome::Reset => Some(Told::Broke),
        Outcome::Failed(Reason::UpstreamReset | Reason::UpstreamProtocol, _) => Some(Told::Broke),
        // What has begun to answer works, however long it takes to the end.
        Outcome::Failed(Reason::DeadlineExceeded, _) => {
            let has_begun = meta.ledger.answered_at().is_some();
            Some(if has_begun { Told::Works(served(meta)) } else { Told::Late })
        }
        Outcome::Failed(..) | Outcome::Cancelled => None,
    };
    if let Some(told) = told {
        tell(meta, told);
    }
}

/// What an answer with these statuses tells; nothing, where it says that it was cancelled.
fn said(meta: &CallMeta, http: u16, grpc: u8) -> Option<Told> {
    let served = served(meta);
    let told = match (meta.kind, http, grpc) {
        (Kind::Grpc, 200, 1) => return None,
        (Kind::Grpc, 200, 4) => Told::Late,
        (Kind::Grpc, 200, 2 | 13 | 14) | (_, 500.., _) => Told::Errs(served),
        (Kind::Grpc, 200, 12) if meta.is_foreign.get() => Told::Foreign(served),
        // What answers is no gRPC server.
        (Kind::Grpc, 404, _) => Told::Foreign(served),
        _ => Told::Works(served),
    };
    Some(told)
}

fn served(meta: &CallMeta) -> Served {
    Served::of_path(meta.uri.path())
}

fn tell(meta: &CallMeta, told: Told) {
    let target = meta.target();
    let eject = &target.policy.eject;
    if eject.is_off() {
        return;
    }
    let endpoint = meta.endpoint();
    if endpoint.load.is(Sick::Ejected) {
        return tell_trial(meta, &endpoint, || told);
    }
    let row = endpoint.load.history().note(told, Reports::rows(eject), now);
    if let Some(row) = row {
        target.view.reports().row(target.view.service(), &endpoint, row);
    }
}

/// Says it of an ejected endpoint if it is this call that tries it; others that were on their way, or
/// go there because too few endpoints are well, do not count.
fn tell_trial(meta: &CallMeta, endpoint: &Arc<Endpoint>, told: impl FnOnce() -> Told) {
    let trial = meta.in_flight.borrow_mut().as_mut().and_then(InFlight::take_trial);
    let Some(trial) = trial else { return };
    trial.is_over();
    let view = &meta.target().view;
    view.reports().tried(view.service(), endpoint, told());
}

fn now() -> std::time::Instant {
    clock::now().into_std()
}
