//! Whether the endpoints that a call may go to take it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};

use super::{Outcome, Step, timed};
use crate::config::{Policy, Probe, Ready};
use crate::health::{self, Unwell};
use crate::model::Record;
use crate::probe::{self, ProbeError};

/// Endpoints that are tried at most.
const TRIED: usize = 32;
/// Tried at a time.
const AT_ONCE: usize = 16;

/// An endpoint that the first attempt may go to.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) record: Arc<Record>,
    /// Its part of the calls by weight, 0 to 1.
    pub(super) share: f64,
}

/// Connects to each as an attempt would.
pub(super) async fn connect(candidates: &[Candidate], policy: &Policy, steps: &mut Vec<Step>) {
    let tried = candidates.iter().take(TRIED).map(|candidate| attempt(candidate, policy));
    let tried = stream::iter(tried).buffered(AT_ONCE).collect::<Vec<_>>().await;
    steps.extend(tried.into_iter().flatten());
    if candidates.len() > TRIED {
        let more = format!("{} more endpoints are not tried", candidates.len() - TRIED);
        let step = Step::ok("connect", "", more);
        steps.push(Step { outcome: Outcome::Skipped, ..step });
    }
}

async fn attempt(candidate: &Candidate, policy: &Policy) -> Vec<Step> {
    let Candidate { record, share } = candidate;
    let on = record.address.as_str();
    let limit = policy.connect_timeout;
    let (stream, took) = timed(probe::connect(&record.address, limit)).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return vec![failed("connect", on, &error).took(took)],
    };
    let part = format!("{:.1}% of the calls", share * 100.0);
    let mut steps = vec![Step::ok("connect", on, part).took(took)];
    if record.tls {
        let step = Step::ok("settings", on, "its record asks for TLS, which is not looked into");
        steps.push(Step { outcome: Outcome::Skipped, ..step });
        return steps;
    }
    // TCP and SETTINGS share one limit in a call; here an endpoint that needs longer is told apart
    // from one that says nothing at all.
    let (settings, more) = timed(probe::settings(&mut stream, limit.max(PATIENCE))).await;
    if let Err(error) = settings {
        steps.push(failed("settings", on, &error).took(more));
        return steps;
    }
    let step = Step::ok("settings", on, "speaks HTTP/2").took(more);
    steps.push(match took + more > limit && policy.ready == Ready::Settings {
        true => step.but(
            Outcome::Failed,
            "it takes longer than connect_timeout, so calls go elsewhere: see what keeps it busy, or \
             raise connect_timeout",
        ),
        false => step,
    });
    steps.push(ask_health(record).await);
    steps
}

/// A server without a health service is as good as any.
async fn ask_health(record: &Record) -> Step {
    let on = record.address.as_str();
    let probe = Probe::Grpc { address: record.address.clone(), service: String::new() };
    let (answer, took) = timed(health::run(&probe, PATIENCE)).await;
    let step = |detail: &str| Step::ok("health", on, detail);
    let step = match answer {
        Ok(()) => step("SERVING"),
        Err(Unwell::Mute(_)) => {
            Step { outcome: Outcome::Skipped, ..step("it has no grpc.health.v1.Health") }
        }
        Err(error) => {
            let text = error.to_string();
            let advice = match error {
                Unwell::Late(_) => "the process accepts calls and does not work on them: it hangs",
                Unwell::Says(_) => {
                    "the server says of itself that it is not ready: see its log, and what it waits for"
                }
                _ => "it speaks HTTP/2, but not as a gRPC server does: is that the right port?",
            };
            // The step names the endpoint already.
            let text = text.strip_prefix(&format!("{on}: ")).unwrap_or(&text);
            step(text).but(Outcome::Failed, advice)
        }
    };
    step.took(took)
}

/// How long an endpoint is waited for that takes connections.
const PATIENCE: Duration = Duration::from_secs(3);

fn failed(step: &'static str, on: &str, error: &ProbeError) -> Step {
    let advice = match error {
        ProbeError::Name(_) => "register an address, or a name that this host can resolve",
        ProbeError::Unreachable(_) => {
            "is the process running, and does it listen on this address rather than on 127.0.0.1? If \
             it is gone, delete its key: `pillion registry rm`"
        }
        ProbeError::NoTcp(_) => {
            "a firewall or network policy drops the packets, or the host is gone"
        }
        ProbeError::NoSettings(_) => {
            "the process hangs, has no thread to accept with, or speaks a protocol in which the client \
             waits"
        }
        ProbeError::Closed | ProbeError::GoAway => {
            "it is stopping, out of connections, or expects TLS"
        }
        ProbeError::Tls => "register a plaintext port, or say in the record that it speaks TLS",
        ProbeError::Http1 | ProbeError::Other(_) => {
            "register the port that serves gRPC; this is another server"
        }
    };
    Step::ok(step, on, error.to_string()).but(Outcome::Failed, advice)
}
