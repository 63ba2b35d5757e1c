//! Asks the endpoints of a service in use whether they are well.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::{
    backoff::jitter,
    config::{EndpointHealth, HealthCheck, HealthKind, Probe},
    health::{self, Unwell, Verdict},
    metrics::Metrics,
    model::{Endpoint, Load, Service, State},
};

/// Checks of one service. They end with the value.
#[derive(Debug, Default)]
pub(super) struct Checkups {
    /// What they go by; none while there are none.
    health: Option<Arc<EndpointHealth>>,
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
}

impl Checkups {
    /// Asks the endpoints that there are now in the way that is configured now; nobody while the
    /// service is not called. Who is not asked counts as well.
    pub(super) fn keep(
        &mut self,
        service: &Arc<Service>,
        health: &Arc<EndpointHealth>,
        in_use: bool,
        means: &Means,
    ) {
        let health = (in_use && health.kind != HealthKind::None).then_some(health);
        if self.health.as_ref() != health {
            self.asked.drain().for_each(|(_, asked)| stop(service, asked));
            self.health = health.cloned();
        }
        while self.tasks.try_join_next().is_some() {}
        let Some(health) = &self.health else { return };
        let snapshot = service.snapshot();
        let mut before = std::mem::take(&mut self.asked);
        for endpoint in snapshot.endpoints.iter().filter(|endpoint| is_asked(endpoint)) {
            let load = Arc::as_ptr(&endpoint.load);
            let asked = before.remove(&load).unwrap_or_else(|| {
                let check = check(endpoint, health);
                let task = ask(Arc::clone(service), Arc::clone(endpoint), check, means.clone());
                (Arc::clone(endpoint), self.tasks.spawn_local(task))
            });
            self.asked.insert(load, asked);
        }
        before.drain().for_each(|(_, asked)| stop(service, asked));
    }
}

/// Whom no call may reach, or could, need not be asked.
fn is_asked(endpoint: &Endpoint) -> bool {
    endpoint.record.state() != State::Forbidden && !endpoint.record.tls
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
async fn ask(service: Arc<Service>, endpoint: Arc<Endpoint>, check: HealthCheck, means: Means) {
    sleep(check.interval.min(FIRST).mul_f64(fastrand::f64())).await;
    // Used until it is known to be sick: a proxy that has just started must not wait.
    let mut verdict = Verdict::new(Some(true));
    loop {
        let answer = {
            // Never closed.
            let Ok(_place) = means.places.acquire().await else { return };
            health::run(&check.probe, check.timeout).await
        };
        means.metrics.checked(service.name().as_str(), answer.is_ok());
        let before = verdict.healthy();
        verdict.note(answer.is_ok(), &check);
        if verdict.healthy() != before {
            tell(&service, &endpoint, answer);
        }
        sleep(jitter(check.interval)).await;
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
