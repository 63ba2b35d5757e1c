//! What is known about a call.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell, Ref, RefCell},
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, Uri, header::CONTENT_TYPE, request, uri};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{CallError, Downstream, Ledger};
use crate::{
    balance::Stages,
    clock,
    config::Policy,
    limit::Permit,
    metrics::AttemptOutcome,
    model::{Address, Endpoint, GrpcStatus, InFlight, Reason, Selectors, ServiceName, Statuses},
    panics::{Task, caught},
    route::Rule,
    view::ServiceView,
};

/// What is known about a call, from its first header byte to its last.
pub struct CallMeta {
    /// When its head had arrived.
    pub arrived: Instant,
    /// How it is answered when the proxy itself has to.
    pub kind: Kind,
    /// `:authority`, `:path` and the rest of it, as it came.
    pub uri: Uri,
    /// Header `host` of a call without `:authority`.
    pub host: OnceCell<Box<str>>,
    /// Header `pillion-service`, if sent.
    pub service_header: OnceCell<Box<str>>,
    /// Header `pillion-node`, or the node in the authority.
    pub pin: OnceCell<Box<str>>,
    /// Header `pillion-filter`, parsed.
    pub filter: OnceCell<Arc<Selectors>>,
    /// Hash of the header `pillion-hash-key`, if sent.
    pub hash_key: Cell<Option<u64>>,
    /// Address of the application; none on a Unix socket.
    pub source: Option<IpAddr>,
    /// Names in the certificate of the application; none where it was not asked for one.
    pub identity: Option<Rc<str>>,
    /// The connection that it came on.
    pub downstream: Downstream,
    /// What keeps it together with other calls, for balancing by key.
    pub key: Cell<Option<u64>>,
    /// Whether the caller asked for `pillion-why`.
    pub explain: Cell<bool>,
    /// What the listener found wrong with it: the answer that it gets, and nothing else.
    pub refused: Cell<Option<Box<CallError>>>,
    /// Service that it asks for, where this worker has not met that yet.
    pub named: OnceCell<ServiceName>,
    /// Name of the route that answered it by itself.
    pub answered_by: OnceCell<Arc<str>>,
    /// Where it goes, once that is decided.
    pub target: OnceCell<Target>,
    /// When it must be over.
    pub deadline: Cell<Option<Instant>>,
    /// By what the newest endpoint was picked, or none was; none before, and for a call with a pin.
    pub decided: RefCell<Option<Decided>>,
    /// Endpoints tried, one for each attempt.
    pub tried: RefCell<SmallVec<[Arc<Endpoint>; 3]>>,
    /// Where its time goes.
    pub ledger: Ledger,
    /// Counts the call on the endpoint that it is on now.
    pub in_flight: RefCell<Option<InFlight>>,
    /// Places that it has where calls are limited, until it is over.
    pub places: RefCell<SmallVec<[Permit; 2]>>,
    /// Since when the endpoint is waited for: when the last part of the call that it has went out.
    /// Kept where latency decides; none before and after.
    pub waiting: Cell<Option<Instant>>,
    /// Why it was not tried again, where the policy would have it.
    pub not_retried: Cell<Option<&'static str>>,
    /// Whether the endpoint says that it does not know the gRPC service.
    pub is_foreign: Cell<bool>,
    /// Whether an endpoint that refused the call has been asked once more.
    pub asked_again: Cell<bool>,
    outcome: Cell<Option<Outcome>>,
    message: OnceCell<Box<str>>,
    observer: OnceCell<Rc<dyn Observer>>,
}

/// Whether a call is gRPC: that decides how errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `content-type: application/grpc*`.
    Grpc,
    /// Any other HTTP/2 request.
    Http,
}

/// Where a call goes, and by which rules.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service, as this worker sees it.
    pub view: Rc<ServiceView>,
    /// How its calls are made.
    pub policy: Arc<Policy>,
    /// Which of its endpoints may be used.
    pub selectors: Arc<Selectors>,
    /// The route that led there, where one did.
    pub rule: Option<Arc<Rule>>,
}

/// By what an endpoint was picked.
#[derive(Clone, Debug)]
pub struct Decided {
    /// How many endpoints each stage left.
    pub stages: Rc<Stages>,
    /// Which of [`Target::selectors`] it was picked by; none where none was picked.
    pub rule: Option<usize>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered to the end.
    Answered {
        /// `:status`.
        http: u16,
        /// `grpc-status`; UNKNOWN where a gRPC answer had none.
        grpc: GrpcStatus,
    },
    /// The proxy ended it.
    Failed(Reason, Statuses),
    /// The endpoint reset it, with a code that was passed on.
    Reset,
    /// The caller went away.
    Cancelled,
}

/// Is told when a call is over.
pub trait Observer {
    /// Called once, when nothing of the call is left.
    fn ended(&self, call: &CallMeta, outcome: Outcome);
}

impl CallMeta {
    /// A call that has just arrived from `source`, whose certificate carries `identity`, on `downstream`.
    pub fn new(
        head: &request::Parts,
        source: Option<IpAddr>,
        identity: Option<Rc<str>>,
        downstream: Downstream,
    ) -> Self {
        Self {
            arrived: clock::now(),
            kind: Kind::of(&head.headers),
            uri: head.uri.clone(),
            host: OnceCell::new(),
            service_header: OnceCell::new(),
            pin: OnceCell::new(),
            filter: OnceCell::new(),
            hash_key: Cell::new(None),
            source,
            identity,
            downstream,
            key: Cell::new(None),
            explain: Cell::new(false),
            refused: Cell::new(None),
            named: OnceCell::new(),
            answered_by: OnceCell::new(),
            target: OnceCell::new(),
            deadline: Cell::new(None),
            decided: RefCell::default(),
            tried: RefCell::default(),
            ledger: Ledger::default(),
            in_flight: RefCell::default(),
            places: RefCell::default(),
            waiting: Cell::new(None),
            not_retried: Cell::new(None),
            is_foreign: Cell::new(false),
            asked_again: Cell::new(false),
            outcome: Cell::new(None),
            message: OnceCell::new(),
            observer: OnceCell::new(),
        }
    }

    /// Who is told when the call is over. The first one set stays.
    pub fn observe(&self, observer: Rc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Says how the call ended; the first word counts. A call that ends without one was cancelled.
    pub fn finish(&self, outcome: Outcome) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(outcome));
        }
    }

    /// Says that something of the call has gone out: only what takes longer is the endpoint's time. A
    /// stream whose caller has nothing to say must not make its endpoint look slow.
    pub fn wait_for_answer(&self) {
        if self.target().policy.balance.is_by_latency() {
            self.waiting.set(Some(clock::now()));
        }
    }

    /// Says that the proxy ended the call with this error, if nothing else ended it before.
    pub fn fail(&self, error: CallError) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(Outcome::Failed(error.reason, error.statuses)));
            let _ = self.message.set(error.message.into());
        }
    }

    /// What the proxy told the caller, where it ended the call by itself; else empty.
    pub fn message(&self) -> &str {
        self.message.get().map_or("", |message| message)
    }

    /// What the caller wrote into `:authority`, or `host` where that is missing.
    pub fn authority(&self) -> &str {
        let host = || self.host.get().map_or("", |host| host);
        self.uri.authority().map_or_else(host, uri::Authority::as_str)
    }

    /// Where it goes.
    ///
    /// # Panics
    /// Before `resolve`; stages below it may rely on it.
    pub fn target(&self) -> &Target {
        self.target.get().expect("`resolve` has set the target")
    }

    /// Each stage of the decision and the endpoints it kept, up to the rule that an endpoint was picked
    /// by; empty where nothing was to be picked.
    pub fn stages(&self) -> Vec<(String, usize)> {
        let Some(target) = self.target.get() else { return Vec::new() };
        if let Some(pin) = self.pin.get() {
            let known = target.view.service().snapshot().endpoints.len();
            let named = target.view.pins().find_pin(pin).len();
            return vec![("known".to_owned(), known), (format!("node {pin}"), named)];
        }
        let decided = self.decided.borrow();
        let Some(Decided { stages, rule }) = &*decided else { return Vec::new() };
        stages.up_to(*rule).map(|(stage, kept)| (stage.to_owned(), kept)).collect()
    }

    /// Why endpoints were left out by the rule that decided, in a few words. Looks at every endpoint, once
    /// for all calls that are decided alike.
    pub fn dropped(&self) -> Option<Rc<str>> {
        let Target { view, policy, selectors, .. } = self.target.get()?;
        let decided = self.decided.borrow();
        let Decided { stages, rule } = decided.as_ref()?;
        let selector =
            rule.map_or_else(|| selectors.rules().last(), |at| selectors.rules().get(at))?;
        Some(stages.dropped(*rule, |standard| view.explain_rule(selector, policy, standard)))
    }

    /// The rule of its filter that the newest endpoint was picked by, where there is a filter.
    pub fn rule(&self) -> Option<String> {
        let selectors = &self.target.get()?.selectors;
        let rule = selectors.rules().get(self.decided.borrow().as_ref()?.rule?)?;
        let name = || if rule.is_empty() { "any".to_owned() } else { rule.to_string() };
        (!selectors.is_any()).then(name)
    }

    /// Whether its deadline has passed at `now`.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.get().is_some_and(|deadline| deadline <= now)
    }

    /// The endpoint of the current attempt.
    ///
    /// # Panics
    /// Before `balance`; stages below it may rely on it.
    pub fn endpoint(&self) -> Ref<'_, Arc<Endpoint>> {
        Ref::map(self.tried.borrow(), |tried| {
            let current = tried.get(self.ledger.current()).or_else(|| tried.last());
            current.expect("`balance` has chosen an endpoint")
        })
    }

    /// Address of the endpoint of the current attempt.
    ///
    /// # Panics
    /// As [`Self::endpoint`].
    pub fn address(&self) -> Address {
        self.endpoint().record.address.clone()
    }

    /// Number of the current attempt, from 1; 0 before the first.
    pub fn attempt(&self) -> usize {
        self.attempts().min(self.ledger.current() + 1)
    }

    /// Attempts until now. Where several run side by side, the current one need not be the last.
    pub fn attempts(&self) -> usize {
        self.tried.borrow().len()
    }
}

impl Drop for CallMeta {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.get() {
            let outcome = self.outcome.get().unwrap_or(Outcome::Cancelled);
            // It may be a panic that ends the call: a second one that came out of here would end the process.
            let _ = caught(Task::Call, || observer.ended(self, outcome));
        }
    }
}

impl Kind {
    /// Whether an answer with these statuses tells such a call that it failed.
    pub const fn is_error(self, statuses: Statuses) -> bool {
        match self {
            Self::Grpc => statuses.grpc.code() != 0,
            Self::Http => statuses.http >= 400,
        }
    }

    fn of(headers: &HeaderMap) -> Self {
        let is_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if headers.get(CONTENT_TYPE).is_some_and(is_grpc) { Self::Grpc } else { Self::Http }
    }
}

impl Outcome {
    /// Whether a call of this kind got anything but a good answer.
    pub const fn is_failure(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Answered { grpc, .. }, Kind::Grpc) => grpc.code() != 0,
            (Self::Answered { http, .. }, Kind::Http) => http >= 400,
            (Self::Failed(_, statuses), _) => kind.is_error(statuses),
            (Self::Reset | Self::Cancelled, _) => true,
        }
    }

    /// The status that the caller was given, and what made it an error: a [`Reason`], or what ended
    /// the call otherwise. Empty where the status came from the endpoint.
    pub fn told(self, kind: Kind) -> (Cow<'static, str>, &'static str) {
        let error = self.error(kind).map_or("", Reason::as_str);
        let cancelled = match kind {
            Kind::Grpc => GrpcStatus::CANCELLED.name(),
            Kind::Http => "499",
        };
        match (self, kind) {
            (Self::Answered { grpc, .. }, Kind::Grpc) => (grpc.name().into(), ""),
            (Self::Answered { http, .. }, Kind::Http) => (http.to_string().into(), ""),
            (Self::Failed(_, statuses), Kind::Grpc) => (statuses.grpc.name().into(), error),
            (Self::Failed(_, statuses), Kind::Http) => (statuses.http.to_string().into(), error),
            (Self::Reset, _) => ("RESET".into(), "reset by the endpoint"),
            (Self::Cancelled, _) => (cancelled.into(), "cancelled"),
        }
    }

    /// Why the proxy answered a call of this kind with an error, where it did.
    pub const fn error(self, kind: Kind) -> Option<Reason> {
        match self {
            Self::Failed(reason, statuses) if kind.is_error(statuses) => Some(reason),
            _ => None,
        }
    }

    /// How the attempt on which the call ended counts.
    pub const fn of_attempt(self) -> AttemptOutcome {
        match self {
            Self::Answered { .. } => AttemptOutcome::Ok,
            Self::Failed(Reason::UpstreamReset | Reason::UpstreamProtocol, _) | Self::Reset => {
                AttemptOutcome::Reset
            }
            Self::Failed(..) | Self::Cancelled => AttemptOutcome::Cancelled,
        }
    }
}

impl fmt::Debug for CallMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMeta")
            .field("kind", &self.kind)
            .field("target", &self.target.get().map(|target| target.view.name()))
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}
