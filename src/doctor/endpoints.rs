//! Whether the endpoints that a call may go to take it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{net::TcpStream, time::timeout};

use super::{Outcome, Step, timed};
use crate::config::{Policy, Probe, Ready};
use crate::health::{self, Unwell};
use crate::metrics::Metrics;
use crate::model::{Record, ServiceName};
use crate::networks::Networks;
use crate::probe::{self, ProbeError};
use crate::tls::{Clients, Failure, Keeper, Stream, Why};

/// Endpoints that are tried at most.
const TRIED: usize = 32;
/// Tried at a time.
const AT_ONCE: usize = 16;

/// An endpoint that the first attempt may go to.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) record: Arc<Record>,
    pub(super) networks: Arc<Networks>,
    /// Its part of the calls by weight, 0 to 1.
    pub(super) share: f64,
}

/// Connects to each as an attempt would.
pub(super) async fn connect(
    candidates: &[Candidate],
    policy: &Policy,
    service: &ServiceName,
    steps: &mut Vec<Step>,
) {
    let clients = Keeper::new(Metrics::new().tls().clone()).clients();
    let way = Way { policy, service, clients: &clients };
    let tried = candidates.iter().take(TRIED).map(|candidate| attempt(candidate, &way));
    let tried = stream::iter(tried).buffered(AT_ONCE).collect::<Vec<_>>().await;
    steps.extend(tried.into_iter().flatten());
    if candidates.len() > TRIED {
        let more = format!("{} more endpoints are not tried", candidates.len() - TRIED);
        let step = Step::ok("connect", "", more);
        steps.push(Step { outcome: Outcome::Skipped, ..step });
    }
}

/// How endpoints are connected.
struct Way<'a> {
    policy: &'a Policy,
    service: &'a ServiceName,
    clients: &'a Clients,
}

impl Way<'_> {
    /// Speaks TLS to an endpoint.
    async fn shake_hands(&self, tcp: TcpStream, record: &Record) -> Result<Stream, Failure> {
        let terms = self.clients.terms(&self.policy.tls).await?;
        terms.connect(tcp, &record.address, self.service.as_str()).await
    }
}

async fn attempt(candidate: &Candidate, way: &Way<'_>) -> Vec<Step> {
    let (Candidate { record, networks, share }, policy) = (candidate, way.policy);
    let on = record.address.as_str();
    let limit = policy.connect_timeout;
    let (stream, took) = timed(probe::connect(&record.address, networks, limit)).await;
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return vec![failed("connect", on, &error).took(took)],
    };
    let part = format!("{:.1}% of the calls", share * 100.0);
    let mut steps = vec![Step::ok("connect", on, part).took(took)];
    let speaks_tls = policy.tls.is_spoken(record.tls);
    let mut stream = match speaks_tls {
        false => Stream::Plain(stream),
        true => {
            let shaking = timeout(limit.max(PATIENCE), way.shake_hands(stream, record));
            let (shaken, took) = timed(shaking).await;
            match shaken.unwrap_or_else(|_| Err(Failure::late(limit.max(PATIENCE)))) {
                Ok(stream) => {
                    steps.push(Step::ok("tls", on, "its certificate is good").took(took));
                    stream
                }
                Err(failure) => {
                    steps.push(objection(on, &failure).took(took));
                    return steps;
                }
            }
        }
    };
    // TCP and SETTINGS share one limit in a call; here an endpoint that needs longer is told apart
    // from one that says nothing at all.
    let (settings, more) = timed(probe::settings(&mut stream, limit.max(PATIENCE))).await;
    if let Err(error) = settings {
        // It may have looked at our certificate only then.
        let against = stream.failure();
        if let Some(failure) = against.as_ref().and_then(|against| against.get()) {
            steps.pop();
            steps.push(objection(on, failure).took(more));
            return steps;
        }
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
    steps.push(ask_health(candidate, way, speaks_tls).await);
    steps
}

/// A server without a health service is as good as any.
async fn ask_health(candidate: &Candidate, way: &Way<'_>, speaks_tls: bool) -> Step {
    let Candidate { record, networks, .. } = candidate;
    let on = record.address.as_str();
    let asking = async {
        if !speaks_tls {
            let probe = Probe::Grpc { address: record.address.clone(), service: String::new() };
            return health::run_within(Some(networks), &probe, PATIENCE).await;
        }
        let tcp = probe::connect(&record.address, networks, PATIENCE).await;
        let tcp = tcp.map_err(|error| Unwell::Protocol(error.to_string()))?;
        let stream = way.shake_hands(tcp, record).await;
        let stream = stream.map_err(|failure| Unwell::Protocol(failure.to_string()))?;
        health::ask(stream, &record.address, "https", "").await
    };
    let (answer, took) = timed(timeout(PATIENCE, asking)).await;
    let answer = answer.unwrap_or(Err(Unwell::Late(PATIENCE)));
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

fn objection(on: &str, failure: &Failure) -> Step {
    let advice = match failure.why {
        Why::WrongName => {
            "name what its certificate carries in `verify` or `server_name`, or issue it another one"
        }
        Why::Expired | Why::NotYetValid => {
            "see what renews its certificate, and the clocks of both hosts"
        }
        Why::UnknownCa => {
            "`ca` must hold the authority that signs for it, and it must send its whole chain"
        }
        Why::PeerWantsCertificate => "give this proxy a certificate: `cert` and `key`",
        Why::PeerUnknownCa | Why::PeerExpired | Why::PeerRefused => {
            "see whom it lets in, and what `cert` says: `openssl x509 -noout -text -in CERT`"
        }
        Why::NotTls | Why::Closed => {
            "it speaks plaintext, most likely: see `mode`, and whether its record should say TLS"
        }
        Why::NoAlpn => "register the port that serves gRPC; this is another server",
        _ => "see `min_version`, which lets TLS 1.2 pass, and its log",
    };
    Step::ok("tls", on, failure.to_string()).but(Outcome::Failed, advice)
}

fn failed(step: &'static str, on: &str, error: &ProbeError) -> Step {
    let advice = match error {
        ProbeError::Name(_) => "register an address, or a name that this host can resolve",
        ProbeError::Refused(_) => {
            "register another address, or see `allow` and `deny` of the source"
        }
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
        ProbeError::Tls => {
            "say that it speaks TLS, in its record or by `mode` in [defaults.tls]; or register a plaintext port"
        }
        ProbeError::Http1 | ProbeError::Other(_) => {
            "register the port that serves gRPC; this is another server"
        }
    };
    Step::ok(step, on, error.to_string()).but(Outcome::Failed, advice)
}
