//! Looks after the services in use, on the control thread, and does what their wards decide.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_local,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    checkups::{Checkups, Means},
    ward::{Event, FOREIGN, Ward},
};
use crate::{
    config::Eject,
    connect,
    live::Live,
    metrics::Metrics,
    model::{EjectReason, Endpoint, Row, Rows, Service, Told},
    panics::{Caught, Task},
    tls::Clients,
};

/// Between two looks at the services that are called.
const LOOK: Duration = Duration::from_millis(250);
/// Looks at a service after its last call has begun, for those that are still going on.
const LOOKS_AFTER: u32 = 20;
/// Looks after its last call at which the endpoints of a service are no longer asked: a minute.
const LOOKS_IN_USE: u32 = 240;
/// Most dials, and most checks, at a time.
const AT_A_TIME: usize = 64;

/// Tells the control thread what cannot wait for its next look. Cloning shares it; telling never waits.
#[derive(Clone, Debug)]
pub struct Reports(mpsc::UnboundedSender<Report>);

/// What is told.
#[derive(Debug)]
enum Report {
    /// A worker calls the service.
    Met(Arc<Service>),
    Row(Arc<Service>, Arc<Endpoint>, Row),
    Tried(Arc<Service>, Arc<Endpoint>, Told),
    Dialled(Arc<Service>, Arc<Endpoint>, bool),
}

/// Looks after services.
#[derive(Debug)]
pub struct Warden {
    live: Arc<Live>,
    metrics: Metrics,
    reports: Reports,
    inbox: mpsc::UnboundedReceiver<Report>,
    wards: HashMap<*const Service, Watched>,
    dials: Arc<Semaphore>,
    means: Means,
}

#[derive(Debug)]
struct Watched {
    ward: Ward,
    /// Its calls at the last look, and the looks since they were as many.
    calls: u64,
    quiet: u32,
    checkups: Checkups,
}

impl Reports {
    /// A worker has met the service, and will call it.
    pub fn met(&self, service: &Arc<Service>) {
        self.tell(Report::Met(Arc::clone(service)));
    }

    /// A row of failures of an endpoint is complete. No pick chooses it before that is judged.
    pub fn row(&self, service: &Arc<Service>, endpoint: &Arc<Endpoint>, row: Row) {
        service.accuse(endpoint);
        self.tell(Report::Row(Arc::clone(service), Arc::clone(endpoint), row));
    }

    /// The call that tried an ejected endpoint tells this of it.
    pub fn tried(&self, service: &Arc<Service>, endpoint: &Arc<Endpoint>, told: Told) {
        self.tell(Report::Tried(Arc::clone(service), Arc::clone(endpoint), told));
    }

    /// Rows that are to be told of, by the rules of the service.
    pub const fn rows(eject: &Eject) -> Rows {
        Rows { broke: eject.consecutive_local, errs: eject.consecutive_errors, foreign: FOREIGN }
    }

    fn tell(&self, report: Report) {
        // Nobody listens once the process stops.
        let _ = self.0.send(report);
    }
}

impl Warden {
    /// A warden that has nothing to look after yet; it speaks TLS by `clients`.
    pub fn new(live: Arc<Live>, clients: Clients, metrics: Metrics) -> Self {
        let (reports, inbox) = mpsc::unbounded_channel();
        let (reports, wards) = (Reports(reports), HashMap::new());
        let dials = Arc::new(Semaphore::new(AT_A_TIME));
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let means = Means { places, metrics: metrics.clone(), clients };
        Self { live, metrics, reports, inbox, wards, dials, means }
    }

    /// Where workers tell.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Looks after services for ever.
    pub async fn run(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(report) = self.inbox.recv() => self.take(report),
                _ = looks.tick(), if !self.wards.is_empty() => self.look(),
            }
        }
    }

    fn take(&mut self, report: Report) {
        let now = Instant::now().into_std();
        let (service, event) = match report {
            Report::Met(service) => {
                let ward = || Watched {
                    ward: Ward::new(Arc::clone(&service), now),
                    calls: 0,
                    quiet: 0,
                    checkups: Checkups::default(),
                };
                self.wards.entry(Arc::as_ptr(&service)).or_insert_with(ward);
                // So that the first ejection is an increase.
                for reason in EjectReason::ALL {
                    self.metrics.ejections(service.name().as_str(), reason.as_str());
                }
                return;
            }
            Report::Row(service, endpoint, row) => {
                let event = self.ask(&service, |ward, eject| ward.row(&endpoint, row, eject, now));
                service.acquit(&endpoint);
                (service, event)
            }
            Report::Tried(service, endpoint, told) => {
                let event =
                    self.ask(&service, |ward, eject| ward.tried(&endpoint, told, eject, now));
                (service, event)
            }
            Report::Dialled(service, endpoint, answers) => {
                let event =
                    self.ask(&service, |ward, eject| ward.dialled(&endpoint, answers, eject, now));
                (service, event)
            }
        };
        if let Some(event) = event {
            self.act(&service, event);
        }
    }

    fn ask(
        &mut self,
        service: &Arc<Service>,
        ask: impl FnOnce(&mut Ward, &Eject) -> Option<Event>,
    ) -> Option<Event> {
        let watched = self.wards.get_mut(&Arc::as_ptr(service))?;
        let policy = Arc::clone(self.live.load().policy(service.name()));
        ask(&mut watched.ward, &policy.eject)
    }

    fn look(&mut self) {
        let now = Instant::now().into_std();
        self.wards.retain(|_, watched| !watched.ward.service().is_retired());
        let mut events = Vec::new();
        for Watched { ward, calls, quiet, checkups } in self.wards.values_mut() {
            let so_far = ward.service().calls();
            *quiet = if std::mem::replace(calls, so_far) == so_far { *quiet + 1 } else { 0 };
            if *quiet > LOOKS_IN_USE + 1 && !ward.has_ejected() {
                *quiet = LOOKS_IN_USE + 1;
                continue;
            }
            let policy = Arc::clone(self.live.load().policy(ward.service().name()));
            let service = Arc::clone(ward.service());
            checkups.keep(&service, &policy, *quiet <= LOOKS_IN_USE, &self.means);
            if *quiet > LOOKS_AFTER && !ward.has_ejected() {
                continue;
            }
            let found = ward.look(&policy.eject, now);
            events.extend(found.into_iter().map(|event| (Arc::clone(&service), event)));
        }
        events.into_iter().for_each(|(service, event)| self.act(&service, event));
    }

    fn act(&self, service: &Arc<Service>, event: Event) {
        let name = service.name();
        match event {
            Event::Ejected(endpoint, reason, what, length) => {
                let address = &endpoint.record.address;
                let (reason, length) = (reason.as_str(), humantime::format_duration(length));
                tracing::warn!(service = %name, endpoint = %address, reason, "ejected for {length}: {what}");
                self.metrics.ejections(name.as_str(), reason).inc();
            }
            Event::Readmitted(endpoint) => {
                let address = &endpoint.record.address;
                tracing::info!(service = %name, endpoint = %address, "takes calls again");
            }
            Event::Dial(endpoint) => self.dial(Arc::clone(service), endpoint),
        }
    }

    fn dial(&self, service: Arc<Service>, endpoint: Arc<Endpoint>) {
        let (dials, reports) = (Arc::clone(&self.dials), self.reports());
        let policy = Arc::clone(self.live.load().policy(service.name()));
        let counted = Rc::new(self.metrics.service(service.name().as_str()));
        let clients = self.means.clients.clone();
        spawn_local(async move {
            // Never closed.
            let Ok(_place) = dials.acquire_owned().await else { return };
            let asking = connect::answers(&endpoint, service.name(), &policy, &clients, &counted);
            let answers = Caught::new(Task::Upstream, asking).await.unwrap_or(false);
            reports.tell(Report::Dialled(service, endpoint, answers));
        });
    }
}
