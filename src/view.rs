//! Services as one worker sees them.
//!
//! A worker keeps, for each service that it has met, the shared [`Service`], the metric handles and
//! what it has prepared for the current snapshot. Everything here stays on one thread.

mod chooser;
mod fastest;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;

pub use chooser::Chooser;
use fastest::Fastest;

use crate::{
    balance::{Choice, Pins, Plan, Standard, Step, Tables, explain_rule},
    clock,
    config::{Limits, Policy},
    limit::{Counted, Gate, Gates},
    live::Live,
    metrics::{Metrics, ServiceMetrics},
    model::{Selector, Selectors, Service, ServiceName, Snapshot},
    wards::Reports,
};

/// Most selectors remembered for one snapshot: callers may send any number of different ones.
const MOST_SELECTORS: usize = 128;

/// Most gates of a service remembered: its policy has one, and a route may have another.
const MOST_GATES: usize = 8;

/// The services that one worker has met.
pub struct Views {
    metrics: Metrics,
    means: Rc<Means>,
    unknown: Rc<ServiceMetrics>,
    known: RefCell<HashMap<ServiceName, Rc<ServiceView>, RandomState>>,
}

/// What choices are made with.
struct Means {
    live: Arc<Live>,
    tables: Tables,
    reports: Reports,
}

/// One service, as one worker sees it.
pub struct ServiceView {
    service: Arc<Service>,
    means: Rc<Means>,
    /// Counters of this service.
    pub metrics: Rc<ServiceMetrics>,
    /// How long it takes to connect an endpoint, at best.
    pub fastest_connect: Fastest,
    prepared: RefCell<Prepared>,
    gates: RefCell<Vec<(Arc<Limits>, Arc<Gate>)>>,
}

/// What has been worked out for one snapshot.
struct Prepared {
    version: u64,
    snapshot: Arc<Snapshot>,
    choices: HashMap<(Arc<str>, ByPointer), Rc<Chooser>, RandomState>,
    last: Option<(Arc<str>, Arc<Policy>, Rc<Chooser>)>,
    pins: Option<Rc<Pins>>,
}

/// A policy, the same only as itself: a reload makes new ones.
struct ByPointer(Arc<Policy>);

impl Views {
    /// None met yet.
    pub fn new(metrics: &Metrics, live: Arc<Live>, tables: Tables, reports: Reports) -> Self {
        Self {
            metrics: metrics.clone(),
            means: Rc::new(Means { live, tables, reports }),
            unknown: Rc::new(metrics.service(crate::metrics::UNKNOWN_SERVICE)),
            known: RefCell::default(),
        }
    }

    /// The service, if this worker has met it and discovery still keeps it.
    pub fn get(&self, name: &str) -> Option<Rc<ServiceView>> {
        let known = self.known.borrow();
        let view = known.get(name)?;
        if !view.service.is_retired() {
            return Some(Rc::clone(view));
        }
        drop(known);
        self.known.borrow_mut().remove(name);
        None
    }

    /// Remembers a service that discovery knows.
    pub fn add(&self, service: Arc<Service>) -> Rc<ServiceView> {
        let mut known = self.known.borrow_mut();
        known.retain(|_, view| !view.service.is_retired());
        self.means.reports.met(&service);
        let name = service.name().clone();
        let metrics = Rc::new(self.metrics.service(name.as_str()));
        let view = Rc::new(ServiceView::new(service, metrics, Rc::clone(&self.means)));
        known.insert(name, Rc::clone(&view));
        view
    }

    /// Counters of calls to services that no source knows.
    pub const fn unknown(&self) -> &Rc<ServiceMetrics> {
        &self.unknown
    }
}

impl ServiceView {
    fn new(service: Arc<Service>, metrics: Rc<ServiceMetrics>, means: Rc<Means>) -> Self {
        let prepared = RefCell::new(Prepared::new(&service));
        Self {
            service,
            means,
            metrics,
            fastest_connect: Fastest::default(),
            prepared,
            gates: RefCell::default(),
        }
    }

    /// Name of the service.
    pub fn name(&self) -> &ServiceName {
        self.service.name()
    }

    /// The shared service.
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Where is told what endpoints do.
    pub fn reports(&self) -> &Reports {
        &self.means.reports
    }

    /// What calls with these selectors and this policy choose from, in the newest snapshot, as its
    /// endpoints are now.
    pub fn choice(&self, selectors: &Selectors, policy: &Arc<Policy>) -> Rc<Chooser> {
        let mut prepared = self.current();
        // Nearly all calls of a service come with the same selectors, those of its policy.
        let last = prepared
            .last
            .as_ref()
            .filter(|(text, of, _)| Arc::ptr_eq(text, selectors.text()) && Arc::ptr_eq(of, policy));
        let choice = match last {
            Some((.., choice)) => Rc::clone(choice),
            None => {
                let choice = prepared.choice(selectors, policy, &self.means, &self.metrics);
                let key = (Arc::clone(selectors.text()), Arc::clone(policy));
                prepared.last = Some((key.0, key.1, Rc::clone(&choice)));
                choice
            }
        };
        choice.keep_up(self.service.changes(), now);
        choice
    }

    /// Whom this rule of a filter, and the stages after it, leave out of the newest snapshot, and why.
    /// Looks at every endpoint.
    pub fn explain_rule(&self, rule: &Selector, policy: &Policy, standard: Standard) -> Vec<Step> {
        let plan = Plan::new(policy, &self.means.live.load().node);
        explain_rule(&self.service.snapshot(), rule, &plan, standard, now())
    }

    /// The newest snapshot, by id and address.
    pub fn pins(&self) -> Rc<Pins> {
        let mut prepared = self.current();
        let Prepared { snapshot, pins, .. } = &mut *prepared;
        Rc::clone(pins.get_or_insert_with(|| Rc::new(Pins::new(snapshot))))
    }

    /// The gate that keeps `limits`; limits that are new here are looked up in `gates`, as those of
    /// the `route` that has them, or of the service.
    pub fn gate(&self, limits: &Arc<Limits>, route: Option<&Arc<str>>, gates: &Gates) -> Arc<Gate> {
        let mut known = self.gates.borrow_mut();
        if let Some((_, gate)) = known.iter().find(|(of, _)| Arc::ptr_eq(of, limits)) {
            return Arc::clone(gate);
        }
        // Those of settings that were replaced; whoever is still needed is looked up again.
        if known.len() >= MOST_GATES {
            known.clear();
        }
        let calls = Counted { service: self.name().clone(), route: route.cloned() };
        let gate = gates.of(calls, limits);
        if let Some(limit) = gate.adaptive_limit() {
            self.metrics.adaptive_limit(gate.route(), limit);
        }
        known.push((Arc::clone(limits), Arc::clone(&gate)));
        gate
    }

    fn current(&self) -> std::cell::RefMut<'_, Prepared> {
        let mut prepared = self.prepared.borrow_mut();
        if prepared.version != self.service.version() {
            *prepared = Prepared::new(&self.service);
        }
        prepared
    }
}

impl Prepared {
    fn new(service: &Service) -> Self {
        // The version first: a snapshot that is replaced in between is prepared once more.
        let (version, snapshot) = (service.version(), Arc::clone(&service.snapshot()));
        Self { version, snapshot, choices: HashMap::default(), last: None, pins: None }
    }

    fn choice(
        &mut self,
        selectors: &Selectors,
        policy: &Arc<Policy>,
        means: &Means,
        metrics: &ServiceMetrics,
    ) -> Rc<Chooser> {
        let key = (Arc::clone(selectors.text()), ByPointer(Arc::clone(policy)));
        if self.choices.len() >= MOST_SELECTORS && !self.choices.contains_key(&key) {
            self.choices.clear();
        }
        let new = || {
            let plan = Plan::new(policy, &means.live.load().node);
            let choice = Choice::new(&self.snapshot, selectors, &plan, &means.tables, now());
            Rc::new(Chooser::new(choice, selectors, policy, metrics))
        };
        Rc::clone(self.choices.entry(key).or_insert_with(new))
    }
}

fn now() -> std::time::Instant {
    clock::now().into_std()
}

impl PartialEq for ByPointer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByPointer {}

impl Hash for ByPointer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("known", &self.known.borrow().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServiceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceView").field("service", &self.service).finish_non_exhaustive()
    }
}
