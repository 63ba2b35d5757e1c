//! Services as one worker sees them.
//!
//! A worker keeps, for each service that it has met, the shared [`Service`], the metric handles and
//! what it has prepared for the current snapshot. Everything here stays on one thread.

mod fastest;

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc, sync::Arc};

use foldhash::fast::RandomState;

use fastest::Fastest;

use crate::{
    balance::{Choice, Pins},
    config::{Balance, Limits},
    limit::{Counted, Gate, Gates},
    metrics::{Metrics, ServiceMetrics},
    model::{Selectors, Service, ServiceName, Snapshot},
};

/// Most selectors remembered for one snapshot: callers may send any number of different ones.
const MOST_SELECTORS: usize = 128;

/// Most gates of a service remembered: its policy has one, and a route may have another.
const MOST_GATES: usize = 8;

/// The services that one worker has met.
pub struct Views {
    metrics: Metrics,
    unknown: Rc<ServiceMetrics>,
    known: RefCell<HashMap<ServiceName, Rc<ServiceView>, RandomState>>,
}

/// One service, as one worker sees it.
pub struct ServiceView {
    service: Arc<Service>,
    /// Counters of this service.
    pub metrics: Rc<ServiceMetrics>,
    /// How long it takes to connect an endpoint, at best.
    pub fastest_connect: Fastest,
    prepared: RefCell<Prepared>,
    gates: RefCell<Vec<(Arc<Limits>, Arc<Gate>)>>,
}

/// What has been worked out for one snapshot.
struct Prepared {
    snapshot: Arc<Snapshot>,
    choices: HashMap<(Arc<str>, Balance), Rc<Choice>, RandomState>,
    last: Option<(Arc<str>, Balance, Rc<Choice>)>,
    pins: Option<Rc<Pins>>,
}

impl Views {
    /// None met yet.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
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
        let name = service.name().clone();
        let metrics = Rc::new(self.metrics.service(name.as_str()));
        let view = Rc::new(ServiceView::new(service, metrics));
        known.insert(name, Rc::clone(&view));
        view
    }

    /// Counters of calls to services that no source knows.
    pub const fn unknown(&self) -> &Rc<ServiceMetrics> {
        &self.unknown
    }
}

impl ServiceView {
    fn new(service: Arc<Service>, metrics: Rc<ServiceMetrics>) -> Self {
        let snapshot = Arc::clone(&service.snapshot());
        let prepared = RefCell::new(Prepared::new(snapshot));
        Self {
            service,
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

    /// What calls with these selectors choose from, in the newest snapshot.
    pub fn choice(&self, selectors: &Selectors, balance: Balance) -> Rc<Choice> {
        let mut prepared = self.current();
        // Nearly all calls of a service come with the same selectors, those of its policy.
        if let Some((text, of, choice)) = &prepared.last
            && Arc::ptr_eq(text, selectors.text())
            && *of == balance
        {
            return Rc::clone(choice);
        }
        let choice = prepared.choice(selectors, balance);
        prepared.last = Some((Arc::clone(selectors.text()), balance, Rc::clone(&choice)));
        choice
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
        let snapshot = self.service.snapshot();
        let mut prepared = self.prepared.borrow_mut();
        if !Arc::ptr_eq(&snapshot, &prepared.snapshot) {
            *prepared = Prepared::new(Arc::clone(&snapshot));
        }
        prepared
    }
}

impl Prepared {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, choices: HashMap::default(), last: None, pins: None }
    }

    fn choice(&mut self, selectors: &Selectors, balance: Balance) -> Rc<Choice> {
        let key = (Arc::clone(selectors.text()), balance);
        if self.choices.len() >= MOST_SELECTORS && !self.choices.contains_key(&key) {
            self.choices.clear();
        }
        let choice = self.choices.entry(key);
        Rc::clone(
            choice.or_insert_with(|| Rc::new(Choice::new(&self.snapshot, selectors, balance))),
        )
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
