//! What an attempt tells of its endpoint, where the balancer goes by latency.

use std::time::Duration;

use http::StatusCode;

use crate::{
    call::{CallMeta, Reply},
    clock,
    metrics::AttemptOutcome,
};

/// Statuses that say nothing of the call but that the endpoint could not do it: UNKNOWN (what
/// uncaught exceptions become), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED (another service has
/// the address), INTERNAL, UNAVAILABLE, DATA_LOSS.
const FAILURES: [u8; 7] = [2, 4, 8, 12, 13, 14, 15];

/// The head of the answer is here. One that says that the endpoint could not do its work counts as a
/// failure, or an endpoint that fails at once would look like the fastest and get all calls.
pub(super) fn answered(meta: &CallMeta, reply: &Reply) {
    let Some(took) = waited(meta) else { return };
    let (endpoint, now) = (meta.endpoint(), clock::now().into_std());
    if is_failure(reply) {
        endpoint.load.latency().failed(took, now);
    } else {
        endpoint.load.latency().answered(took, now, meta.target().policy.peak_ewma_decay);
    }
}

/// The attempt ended without an answer: not connected, refused, reset. One that was ended here says nothing.
pub(super) fn failed(meta: &CallMeta, outcome: AttemptOutcome) {
    if outcome == AttemptOutcome::Cancelled {
        return given_up(meta);
    }
    if meta.target().policy.balance.is_by_latency() {
        let took = waited(meta).unwrap_or_default();
        meta.endpoint().load.latency().failed(took, clock::now().into_std());
    }
}

/// Nobody waits for the answer any more: the deadline has passed, or the caller went away.
pub(super) fn given_up(meta: &CallMeta) {
    if let Some(took) = waited(meta) {
        meta.endpoint().load.latency().given_up(took, clock::now().into_std());
    }
}

/// How long the endpoint has been waited for; tells it once.
fn waited(meta: &CallMeta) -> Option<Duration> {
    meta.waiting.take().map(|since| clock::now() - since)
}

fn is_failure(Reply { head, exchange, .. }: &Reply) -> bool {
    match exchange.status() {
        Some(status) => FAILURES.contains(&status.code()),
        None => head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS,
    }
}
