//! Asks the endpoints of a service in use whether they are well.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    backoff::jitter,
    config::{EndpointHealth, EndpointTls, HealthCheck, HealthKind, Policy, Probe},
    connect::{self, DialError},
    descriptors,
    health::{self, Unwell, Verdict},
    metrics::Metrics,
    model::{Endpoint, Load, Service, State},
    panics::{Task, again},
    tls::Clients,
};

/// Checks of one service. They end with the value.
#[derive(Debug, Default)]
pub(super) struct Checkups {
    /// What they go by; none while there are none.
    health: Option<(Arc<EndpointHealth>, Arc<EndpointTls>)>,
    tasks: JoinSet<()>,
    /// One for each endpoint that is asked.
    asked: HashMap<*const Load, (Arc<Endpoint>, AbortHandle)>,
}

/// What all checks share.
#[derive(Clone, Debug)]
pub(super) struct Means {
    /// How many may go on at a time.
    pub(super) places: Arc<Semaphore>,
    pub(super) metrics: Metrics,
    pub(super) clients: Clients,
}

impl Checkups {
    /// Asks the endpoints that there are now in the way that is configured now; nobody while the
    /// service is not called. Who is not asked counts as well.
    pub(super) fn keep(
        &mut self,
        service: &Arc<Service>,
        policy: &Arc<Policy>,
        in_use: bool,
        means: &Means,
    ) {
        let asks = in_use && policy.health.kind != HealthKind::None;
        let health = asks.then(|| (Arc::clone(&policy.health), Arc::clone(&policy.tls)));
        if self.health != health {
            self.asked.drain().for_each(|(_, asked)| stop(service, asked));
            self.health = health;
        }
        while self.tasks.try_join_next().is_some() {}
        let Some((health, _)) = &self.health else { return };
        let snapshot = service.snapshot();
        let mut before = std::mem::take(&mut self.asked);
        for endpoint in snapshot.endpoints.iter().filter(|endpoint| is_asked(endpoint)) {
            let load = Arc::as_ptr(&endpoint.load);
            let asked = before.remove(&load).unwrap_or_else(|| {
                let check = check(endpoint, health);
                let (service, policy) = (Arc::clone(service), Arc::clone(policy));
                let (asked, means) = (Arc::clone(endpoint), means.clone());
                let task = again(Task::Health, move || {
                    let (service, endpoint) = (Arc::clone(&service), Arc::clone(&asked));
                    ask(service, endpoint, check.clone(), Arc::clone(&policy), means.clone())
                });
                (Arc::clone(endpoint), self.tasks.spawn_local(task))
            });
            self.asked.insert(load, asked);
        }
        before.drain().for_each(|(_, asked)| stop(service, asked));
    }
}

/// Whom no call may reach, or could, need not be asked.
fn is_asked(endpoint: &Endpoint) -> bool {
    endpoint.record.state() != State::Forbidden
}

fn stop(service: &Service, (endpoint, task): (Arc<Endpoint>, AbortHandle)) {
    task.abort();
    service.set_unhealthy(&endpoint, None, now());
}

fn check(endpoint: &Endpoint, health: &EndpointHealth) -> HealthCheck {
    let address = endpoint.record.address.clone();
    HealthCheck {
        probe: match health.kind {
            HealthKind::None => Probe::None,
            HealthKind::Grpc => Probe::Grpc { address, service: String::new() },
            HealthKind::Tcp => Probe::Tcp(address),
        },
        interval: health.interval,
        timeout: health.timeout,
        healthy_after: health.healthy_after,
        unhealthy_after: health.unhealthy_after,
    }
}

/// Asks for ever, the first time within an interval, so that not all are asked at once.
async fn ask(
    service: Arc<Service>,
    endpoint: Arc<Endpoint>,
    check: HealthCheck,
    policy: Arc<Policy>,
    means: Means,
) {
    sleep(check.interval.min(FIRST).mul_f64(fastrand::f64())).await;
    // Used until it is known to be sick: a proxy that has just started must not wait.
    let mut verdict = Verdict::new(Some(true));
    loop {
        let answer = {
            // Never closed.
            let Ok(_place) = means.places.acquire().await else { return };
            match policy.tls.is_spoken(endpoint.record.tls) {
                false => {
                    health::run_within(Some(&endpoint.networks), &check.probe, check.timeout).await
                }
                true => {
                    let asked = ask_by_tls(&service, &endpoint, &policy, &means.clients);
                    let late = Unwell::Late(check.timeout);
                    timeout(check.timeout, asked).await.unwrap_or(Err(late))
                }
            }
        };
        means.metrics.checked(service.name().as_str(), answer.is_ok());
        let before = verdict.healthy();
        if !answer.as_ref().is_err_and(Unwell::is_ours) {
            verdict.note(answer.is_ok(), &check);
        }
        if verdict.healthy() != before {
            tell(&service, &endpoint, answer);
        }
        sleep(jitter(check.interval)).await;
    }
}

/// The same question, asked as calls would reach the endpoint.
async fn ask_by_tls(
    service: &Service,
    endpoint: &Endpoint,
    policy: &Policy,
    clients: &Clients,
) -> Result<(), Unwell> {
    let stream = connect::open(endpoint, service.name(), policy, clients).await.map_err(
        |error| match error {
            DialError::NoDescriptor { address } => {
                Unwell::Connect(address, descriptors::none_left())
            }
            error => Unwell::Protocol(error.to_string()),
        },
    )?;
    match policy.health.kind {
        HealthKind::Grpc => health::ask(stream, &endpoint.record.address, "https", "").await,
        HealthKind::None | HealthKind::Tcp => Ok(()),
    }
}

/// Within this time of the first call each endpoint is asked once, if `interval` is not shorter.
const FIRST: Duration = Duration::from_secs(1);

fn tell(service: &Service, endpoint: &Endpoint, answer: Result<(), Unwell>) {
    let (name, address) = (service.name(), &endpoint.record.address);
    let why = answer.err().map(|unwell| unwell.to_string());
    match &why {
        Some(why) => tracing::warn!(service = %name, endpoint = %address, "unhealthy: {why}"),
        None => tracing::info!(service = %name, endpoint = %address, "healthy again"),
    }
    service.set_unhealthy(endpoint, why, now());
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
