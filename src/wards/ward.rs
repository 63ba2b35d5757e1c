//! The endpoints of one service: who is ejected, for how long, and who comes back.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::evidence::{Evidence, Sample};
use crate::{
    config::Eject,
    model::{
        EjectReason, Ejection, Endpoint, Load, Row, Served, Service, Sick, Snapshot, State, Told,
    },
};

/// Answers in a row that do not know a gRPC service before siblings are looked at.
pub(super) const FOREIGN: u32 = 3;

/// One service that is in use.
#[derive(Debug)]
pub(super) struct Ward {
    service: Arc<Service>,
    snapshot: Arc<Snapshot>,
    /// One an endpoint, in the order of the snapshot.
    patients: Vec<Patient>,
    looked: Instant,
}

/// One endpoint.
#[derive(Debug)]
struct Patient {
    endpoint: Arc<Endpoint>,
    standing: Standing,
    /// Its attempts and failures at the last look.
    counted: (u32, u32),
    /// Those of late; what is older than `interval` is forgotten by and by.
    recent: Sample,
    evidence: Evidence,
    /// Ejections that count for the length of the next one, and when one less will.
    times: u32,
    eases: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    /// It may take calls.
    Well,
    /// Ejected, for this reason, until then.
    Out(EjectReason, Instant),
    /// Its time is over: it is being connected, before a call is.
    Dialled,
    /// A call may try it.
    OnTrial,
}

/// What has happened, to be told, or to be done.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It is ejected, for so long. The text says what it did.
    Ejected(Arc<Endpoint>, EjectReason, String, Duration),
    /// It takes calls again.
    Readmitted(Arc<Endpoint>),
    /// Somebody must find out whether it can be connected, and say so by [`Ward::dialled`].
    Dial(Arc<Endpoint>),
}

impl Ward {
    pub(super) fn new(service: Arc<Service>, now: Instant) -> Self {
        let snapshot = Arc::clone(&service.snapshot());
        let patients = snapshot.endpoints.iter().map(|endpoint| Patient::new(endpoint, now));
        Self { patients: patients.collect(), service, snapshot, looked: now }
    }

    pub(super) const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Looks at everybody: four times a second while the service is called.
    pub(super) fn look(&mut self, eject: &Eject, now: Instant) -> Vec<Event> {
        self.follow(now);
        let mut events = Vec::new();
        if eject.is_off() {
            let out = self.patients.iter_mut().filter(|patient| patient.standing != Standing::Well);
            out.for_each(|patient| events.push(patient.readmit(&self.service, eject, now)));
            return events;
        }
        for patient in &mut self.patients {
            events.extend(patient.pass_time(&self.service, eject, now));
        }
        let mut accused = self.by_rate(eject, now);
        let by_rows = |at: usize| self.patients[at].by_rows(eject).map(|found| (at, found));
        accused.extend((0..self.patients.len()).filter_map(by_rows));
        let foreign = (0..self.patients.len()).filter_map(|at| self.by_service(at, eject));
        accused.extend(foreign.collect::<Vec<_>>());
        for (at, (reason, what)) in accused {
            events.extend(self.eject(at, reason, what, eject, now));
        }
        events
    }

    /// A row of failures of an endpoint is complete.
    pub(super) fn row(
        &mut self,
        endpoint: &Endpoint,
        row: Row,
        eject: &Eject,
        now: Instant,
    ) -> Option<Event> {
        self.follow(now);
        let at = self.find(endpoint)?;
        let (reason, what) = match row {
            Row::Broke | Row::Errs => self.patients[at].by_rows(eject)?,
            Row::Foreign => self.by_service(at, eject)?.1,
        };
        self.eject(at, reason, what, eject, now)
    }

    /// The call that tried an endpoint has shown how it is.
    pub(super) fn tried(
        &mut self,
        endpoint: &Endpoint,
        told: Told,
        eject: &Eject,
        now: Instant,
    ) -> Option<Event> {
        let at = self.find(endpoint)?;
        let patient = &mut self.patients[at];
        if patient.standing != Standing::OnTrial {
            return None;
        }
        let reason = match told {
            Told::Works(_) => return Some(patient.readmit(&self.service, eject, now)),
            Told::Errs(_) => EjectReason::ConsecutiveErrors,
            Told::Foreign(_) => EjectReason::WrongService,
            Told::Broke | Told::Late => EjectReason::ConsecutiveLocal,
        };
        let what = "the call that tried it failed, too".to_owned();
        Some(patient.eject(&self.service, reason, what, eject, now))
    }

    /// Whether an endpoint can be connected that could not be before.
    pub(super) fn dialled(
        &mut self,
        endpoint: &Endpoint,
        answers: bool,
        eject: &Eject,
        now: Instant,
    ) -> Option<Event> {
        let at = self.find(endpoint)?;
        let patient = &mut self.patients[at];
        if patient.standing != Standing::Dialled {
            return None;
        }
        if answers {
            patient.standing = Standing::OnTrial;
            self.service.offer_trial(&patient.endpoint);
            return None;
        }
        let (reason, what) = (EjectReason::ConsecutiveLocal, "it still cannot be connected");
        Some(patient.eject(&self.service, reason, what.to_owned(), eject, now))
    }

    /// Whether somebody is ejected, so that time matters though no calls come.
    pub(super) fn has_ejected(&self) -> bool {
        self.patients.iter().any(|patient| patient.standing != Standing::Well)
    }

    /// Keeps what is known of the endpoints that are still there.
    fn follow(&mut self, now: Instant) {
        let snapshot = self.service.snapshot();
        if Arc::ptr_eq(&snapshot, &self.snapshot) {
            return;
        }
        let known = std::mem::take(&mut self.patients).into_iter();
        let mut known: HashMap<*const Load, Patient> =
            known.map(|patient| (Arc::as_ptr(&patient.endpoint.load), patient)).collect();
        let patient = |endpoint: &Arc<Endpoint>| match known.remove(&Arc::as_ptr(&endpoint.load)) {
            Some(known) => Patient { endpoint: Arc::clone(endpoint), ..known },
            None => Patient::new(endpoint, now),
        };
        self.patients = snapshot.endpoints.iter().map(patient).collect();
        self.snapshot = Arc::clone(&snapshot);
    }

    fn find(&self, endpoint: &Endpoint) -> Option<usize> {
        let is_it = |patient: &Patient| Arc::ptr_eq(&patient.endpoint.load, &endpoint.load);
        self.patients.iter().position(is_it)
    }

    /// Those that fail more of their calls than the others, the worst first.
    fn by_rate(&mut self, eject: &Eject, now: Instant) -> Vec<(usize, (EjectReason, String))> {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        let part = (-passed.as_secs_f64() / eject.interval.as_secs_f64()).exp();
        let (mut all, mut usual) = (Sample::default(), Sample::default());
        let mut new = Vec::with_capacity(self.patients.len());
        for patient in &mut self.patients {
            let own = patient.count();
            patient.recent = patient.recent.faded(part);
            patient.recent.add(own);
            all.add(own);
            usual.add(patient.recent);
            new.push(own);
        }
        let excess = eject.failure_rate.share();
        // Calls that are ended alike, or not at all, tell no endpoint from another.
        if excess == 0.0 || all.calls == 0.0 {
            return Vec::new();
        }
        let mut worse = Vec::new();
        for (at, (patient, own)) in self.patients.iter_mut().zip(new).enumerate() {
            if patient.standing != Standing::Well {
                continue;
            }
            let (others, usual) = (all.less(own), usual.less(patient.recent));
            if patient.evidence.weigh(own, others, usual, excess) {
                worse.push((at, patient.evidence.rates()));
            }
        }
        worse.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
        let told = |(at, (own, others)): (usize, (f64, f64))| {
            let (own, others) = (100.0 * own, 100.0 * others);
            let what = format!("{own:.1} % of its calls failed, of the others' {others:.1} %");
            (at, (EjectReason::FailureRate, what))
        };
        worse.into_iter().map(told).collect()
    }

    /// Whether one answers for another service than its siblings do.
    fn by_service(&self, at: usize, eject: &Eject) -> Option<(usize, (EjectReason, String))> {
        let patient = &self.patients[at];
        let history = patient.endpoint.load.history();
        let (served, count): (Served, u32) = history.foreign();
        if !eject.wrong_service || count < FOREIGN || patient.standing != Standing::Well {
            return None;
        }
        let serves = |other: &Patient| {
            other.standing == Standing::Well && other.endpoint.load.history().is_serving(served)
        };
        let sibling = self.patients.iter().enumerate().find(|(of, p)| *of != at && serves(p));
        let sibling = &sibling?.1.endpoint.record.address;
        let what = format!(
            "{count} times it did not know a gRPC service that {sibling} answers for: its address \
             may have gone to another service"
        );
        Some((at, (EjectReason::WrongService, what)))
    }

    fn eject(
        &mut self,
        at: usize,
        reason: EjectReason,
        what: String,
        eject: &Eject,
        now: Instant,
    ) -> Option<Event> {
        if self.patients[at].standing != Standing::Well || !self.may_eject(at, eject) {
            return None;
        }
        Some(self.patients[at].eject(&self.service, reason, what, eject, now))
    }

    /// Whether one more may go: not more than `max_share`, but one, and never the last.
    fn may_eject(&self, at: usize, eject: &Eject) -> bool {
        let used = || {
            let patients = self.patients.iter().enumerate();
            patients.filter(|(_, patient)| patient.endpoint.record.state() == State::Ready)
        };
        let out = used().filter(|(_, patient)| patient.standing != Standing::Well).count();
        let most = (eject.max_share.share() * used().count() as f64).floor().max(1.0) as usize;
        let is_left =
            |(other, patient): (usize, &Patient)| other != at && patient.endpoint.load.is_usable();
        out < most && used().any(is_left)
    }
}

impl Patient {
    fn new(endpoint: &Arc<Endpoint>, now: Instant) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            standing: Standing::Well,
            counted: endpoint.load.history().counts(),
            recent: Sample::default(),
            evidence: Evidence::default(),
            times: 0,
            eases: now,
        }
    }

    /// What has ended since the last look.
    fn count(&mut self) -> Sample {
        let (calls, failures) = self.endpoint.load.history().counts();
        let before = std::mem::replace(&mut self.counted, (calls, failures));
        let (calls, failures) = (calls.wrapping_sub(before.0), failures.wrapping_sub(before.1));
        Sample { calls: f64::from(calls), failures: f64::from(failures.min(calls)) }
    }

    fn by_rows(&self, eject: &Eject) -> Option<(EjectReason, String)> {
        let (broke, errs) = self.endpoint.load.history().rows();
        let is_complete = |count: u32, most: u32| most > 0 && count >= most;
        if is_complete(broke, eject.consecutive_local) {
            let what = format!("could not be connected, or broke off, {broke} times in a row");
            return Some((EjectReason::ConsecutiveLocal, what));
        }
        is_complete(errs, eject.consecutive_errors).then(|| {
            let what = format!("answered UNAVAILABLE, INTERNAL or UNKNOWN {errs} times in a row");
            (EjectReason::ConsecutiveErrors, what)
        })
    }

    /// What is due: the end of its ejection, or one ejection less that counts.
    fn pass_time(&mut self, service: &Service, eject: &Eject, now: Instant) -> Option<Event> {
        match self.standing {
            Standing::Well => {
                while self.times > 0 && now >= self.eases {
                    self.times -= 1;
                    self.eases += eject.interval;
                }
                None
            }
            // Who says that it is not well need not be tried.
            Standing::Out(..) if self.endpoint.load.is(Sick::Unhealthy) => None,
            Standing::Out(EjectReason::ConsecutiveLocal, until) if now >= until => {
                self.standing = Standing::Dialled;
                Some(Event::Dial(Arc::clone(&self.endpoint)))
            }
            Standing::Out(_, until) if now >= until => {
                self.standing = Standing::OnTrial;
                service.offer_trial(&self.endpoint);
                None
            }
            _ => None,
        }
    }

    fn eject(
        &mut self,
        service: &Service,
        reason: EjectReason,
        what: String,
        eject: &Eject,
        now: Instant,
    ) -> Event {
        self.times = self.times.saturating_add(1);
        let length = eject.base.saturating_mul(self.times).min(eject.max);
        self.standing = Standing::Out(reason, now + length);
        self.evidence = Evidence::default();
        let ejection = Ejection { reason, until: now + length, times: self.times };
        service.eject(&self.endpoint, ejection);
        Event::Ejected(Arc::clone(&self.endpoint), reason, what, length)
    }

    fn readmit(&mut self, service: &Service, eject: &Eject, now: Instant) -> Event {
        (self.standing, self.eases) = (Standing::Well, now + eject.interval);
        (self.recent, self.evidence) = (Sample::default(), Evidence::default());
        self.counted = self.endpoint.load.history().counts();
        service.readmit(&self.endpoint, now);
        Event::Readmitted(Arc::clone(&self.endpoint))
    }
}

#[cfg(test)]
mod tests;
