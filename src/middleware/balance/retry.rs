//! The attempts of a call that may be tried again although an endpoint has worked on it.
//!
//! Only calls whose policy asks for that come here. Attempts follow each other, after a wait, or run
//! side by side where the method is hedged. The first answer that is more than a status to be tried
//! again after is the caller's; where there is none, the last one is.

mod hedge;
mod race;
mod verdict;

use std::{rc::Rc, time::Duration};

use tokio::time::Instant;
use tower::Service;

use hedge::Hedge;
use race::{Event, Race, Running};
use verdict::{Failure, Skip, Why};

use super::{choose, end, exhausted, feedback, has_another, next};
use crate::{
    alarm::Alarm,
    backoff::Backoff,
    call::{AttemptError, Call, CallError, CallMeta, Kind, Progress, Reply, Terms},
    clock,
    config::Retry,
    metrics::AttemptOutcome,
    middleware::{deadline::leaves_time, judge},
    retry::{self, Pushback},
};

/// Whether the policy of the call lets it be tried again beyond what is proven unprocessed.
pub(super) fn applies(call: &Call) -> bool {
    let retry = &call.meta.target().policy.retry;
    retry.is_on()
        && call.meta.kind == Kind::Grpc
        && (!retry.on.is_empty()
            || retry.per_try_timeout.is_some()
            || retry.hedge_after(call.head.uri.path()).is_some())
}

/// Runs the attempts of `call`, which has been put on its first endpoint.
pub(super) async fn run<S>(inner: S, call: Box<Call>) -> Result<Reply, CallError>
where
    S: Service<Box<Call>, Response = Reply, Error = AttemptError>,
{
    let mut attempts = Attempts::new(inner, call);
    loop {
        match attempts.race.event(attempts.due.as_mut().map(|due| &mut due.timer)).await {
            Event::Due => attempts.begin_due(),
            Event::Ended(attempt, Ok(reply)) => {
                if let Some(reply) = attempts.answered(attempt, reply) {
                    return Ok(reply);
                }
            }
            Event::Ended(attempt, Err(failed)) => attempts.failed(attempt, failed),
        }
        if attempts.race.is_empty() && attempts.due.is_none() {
            return attempts.give_up();
        }
    }
}

struct Attempts<S: Service<Box<Call>>> {
    meta: Rc<CallMeta>,
    race: Race<S>,
    /// Whether whoever calls tries again already.
    is_retry: bool,
    hedge: Option<Hedge>,
    backoff: Backoff,
    /// Attempts begun that an endpoint may work on, or have worked on.
    previous: u32,
    /// The next attempt, if there is to be one.
    due: Option<Due>,
    /// How the last attempt that failed did: what the caller is told if none does better.
    last: Option<Failed>,
    /// Whether an endpoint has refused the call.
    refused: bool,
    /// Why no other attempt follows, where the policy would have had one.
    skipped: Option<Skip>,
}

/// An attempt that begins later.
struct Due {
    timer: Alarm,
    why: Why,
}

/// How an attempt failed, with what is left of it.
enum Failed {
    Reply(Reply),
    Error(CallError, Option<Box<Call>>),
}

impl<S> Attempts<S>
where
    S: Service<Box<Call>, Response = Reply, Error = AttemptError>,
{
    fn new(inner: S, mut call: Box<Call>) -> Self {
        let meta = Rc::clone(&call.meta);
        let retry = &meta.target().policy.retry;
        retry::call_began(meta.target().view.service(), meta.arrived.into_std());
        let is_retry = retry::is_retry(&call.head.headers);
        let hedge = (!is_retry && meta.target().policy.attempts > 1)
            .then(|| Hedge::of(retry, &mut call))
            .flatten();
        let mut attempts = Self {
            race: Race::new(inner, Rc::clone(&meta)),
            is_retry,
            backoff: Backoff::new(retry.backoff, retry.backoff_max),
            previous: 0,
            due: None,
            last: None,
            refused: false,
            skipped: None,
            hedge,
            meta: Rc::clone(&meta),
        };
        attempts.begin(call);
        attempts.hedge_later();
        attempts
    }

    fn retry(&self) -> &Retry {
        &self.meta.target().policy.retry
    }

    /// Begins an attempt on the endpoint that has been chosen for it.
    fn begin(&mut self, mut call: Box<Call>) {
        let retry = self.retry();
        let hold = !self.is_retry && self.meta.target().policy.attempts > 1 && !retry.on.is_empty();
        call.terms = Terms { hold, limit: retry.per_try_timeout, previous: self.previous };
        self.previous += 1;
        self.race.begin(call);
    }

    /// A hedged call gets another attempt after a while, if there is no answer by then.
    fn hedge_later(&mut self) {
        if let Some(hedge) = &self.hedge
            && self.meta.attempts() < self.meta.target().policy.attempts as usize
        {
            self.due = Some(Due::new(clock::now() + hedge.after, Why::Hedge));
        }
    }

    /// An attempt was answered: the answer, if it is the caller's.
    fn answered(&mut self, attempt: Running<S::Future>, mut reply: Reply) -> Option<Reply> {
        let failure = Failure::of(&mut reply, self.retry());
        if failure.is_some() && self.is_retry {
            self.skip(Skip::PreviousAttempt);
        }
        let Some(Failure { status, pushback }) = failure.filter(|_| !self.is_retry) else {
            feedback::answered(&self.meta, &reply);
            judge::answered(&self.meta, &reply);
            reply.exchange.commit();
            self.race.won(attempt);
            return Some(reply);
        };
        feedback::failed(&self.meta, AttemptOutcome::Ok);
        judge::rejected(&self.meta, &mut reply, status);
        end(&self.meta, AttemptOutcome::Ok, clock::now());
        self.meta.ledger.rejected(status);
        drop(attempt);
        self.last = Some(Failed::Reply(reply));
        self.try_again(Why::Status(status), pushback);
        None
    }

    /// An attempt ended without an answer.
    fn failed(&mut self, attempt: Running<S::Future>, failed: AttemptError) {
        drop(attempt);
        feedback::failed(&self.meta, failed.outcome);
        let AttemptError { error, outcome, progress } = failed;
        let (call, why) = match progress {
            Progress::Unprocessed(call) => return self.unprocessed(call, error, outcome),
            Progress::MaybeProcessed(call) => (call, Why::Lost(error.statuses.grpc)),
            Progress::TimedOut(call) => (call, Why::TimedOut),
        };
        match why {
            Why::TimedOut => judge::timed_out(&self.meta),
            _ => judge::failed(&self.meta, outcome),
        }
        end(&self.meta, outcome, clock::now());
        self.last = Some(Failed::Error(exhausted(error, self.meta.attempts()), call));
        if outcome != AttemptOutcome::Cancelled || matches!(why, Why::TimedOut) {
            self.try_again(why, None);
        } else {
            self.due = None;
        }
    }

    /// No endpoint can have worked on an attempt: the next one follows at once.
    fn unprocessed(&mut self, call: Box<Call>, error: CallError, outcome: AttemptOutcome) {
        self.previous = self.previous.saturating_sub(1);
        let progress = match self.refused_too_often(outcome) {
            true => Progress::MaybeProcessed(None),
            false => Progress::Unprocessed(call),
        };
        match next(&self.meta, AttemptError { error, outcome, progress }) {
            Ok(call) => self.begin(call),
            Err(error) => {
                self.due = None;
                self.last = Some(Failed::Error(error, None));
            }
        }
    }

    /// A refusal is paid for once the next endpoint refuses the call as well. So one endpoint that refuses
    /// what others take costs nothing, and a service all of which does gets no more than others.
    fn refused_too_often(&mut self, outcome: AttemptOutcome) -> bool {
        if outcome != AttemptOutcome::Refused {
            return false;
        }
        let (service, now) = (self.meta.target().view.service(), clock::now().into_std());
        if std::mem::replace(&mut self.refused, true) {
            retry::spend(service, now);
        }
        let spent = retry::is_spent(service, self.retry(), now);
        if spent {
            self.skip(Skip::Budget);
        }
        spent
    }

    /// Plans another attempt after one that failed, if there may be one.
    fn try_again(&mut self, why: Why, pushback: Option<Pushback>) {
        let allowed = match why {
            Why::Lost(status) => self.retry().on.contains(status),
            _ => true,
        };
        if !allowed || self.meta.attempts() >= self.meta.target().policy.attempts as usize {
            self.due = None;
            return;
        }
        match self.wait(pushback) {
            Ok(wait) => self.due = Some(Due::new(clock::now() + wait, why)),
            Err(skipped) => self.skip(skipped),
        }
    }

    /// After which time another attempt may follow one that failed, or why none may.
    fn wait(&mut self, pushback: Option<Pushback>) -> Result<Duration, Skip> {
        if self.is_retry {
            return Err(Skip::PreviousAttempt);
        }
        if !self.can_repeat() {
            return Err(Skip::Committed);
        }
        let wait = match pushback {
            Some(Pushback::Never) => return Err(Skip::Pushback),
            Some(Pushback::After(time)) => time,
            None if self.hedge.is_some() => Duration::ZERO,
            None => self.backoff.wait(),
        };
        let now = clock::now();
        if !now.checked_add(wait).is_some_and(|then| leaves_time(&self.meta, then)) {
            return Err(Skip::Deadline);
        }
        self.ask_budget(now).map(|()| wait)
    }

    fn ask_budget(&self, now: Instant) -> Result<(), Skip> {
        if !has_another(&self.meta) {
            return Err(Skip::NoEndpoint);
        }
        let service = self.meta.target().view.service();
        retry::take(service, self.retry(), now.into_std()).then_some(()).ok_or(Skip::Budget)
    }

    /// No other attempt follows.
    fn skip(&mut self, reason: Skip) {
        self.due = None;
        self.skipped = Some(reason);
        self.meta.not_retried.set(Some(reason.as_str()));
        self.meta.target().view.metrics.retry_skipped(reason.as_str());
    }

    /// The time for another attempt has come.
    fn begin_due(&mut self) {
        let Some(Due { why, .. }) = self.due.take() else { return };
        let call = match why {
            Why::Hedge => self.hedged(),
            _ => self.repeated(),
        };
        if let Some(call) = call {
            self.meta.target().view.metrics.retried(&why.to_string());
            self.begin(call);
            self.hedge_later();
        }
    }

    /// The call once more, on another endpoint, beside those that are under way.
    fn hedged(&mut self) -> Option<Box<Call>> {
        let now = clock::now();
        let Some(call) = self.hedge.as_mut().and_then(|hedge| hedge.call(&self.meta)) else {
            if self.hedge.as_ref().is_some_and(Hedge::is_too_large) {
                self.skip(Skip::Committed);
            } else {
                // It may still come whole.
                self.hedge_later();
            }
            return None;
        };
        if !leaves_time(&self.meta, now) {
            self.skip(Skip::Deadline);
            return None;
        }
        if let Err(reason) = self.ask_budget(now) {
            self.skip(reason);
            return None;
        }
        self.choose(now).then_some(call)
    }

    /// The call that failed last, on another endpoint.
    fn repeated(&mut self) -> Option<Box<Call>> {
        let copy = self.hedge.as_mut().and_then(|hedge| hedge.call(&self.meta));
        if !self.can_repeat() || !self.choose(clock::now()) {
            return None;
        }
        copy.or_else(|| self.last.take()?.call())
    }

    /// Whether the call can be sent once more.
    fn can_repeat(&self) -> bool {
        self.hedge.as_ref().is_some_and(|hedge| hedge.is_whole())
            || self.last.as_ref().is_some_and(Failed::can_rewind)
    }

    fn choose(&mut self, now: Instant) -> bool {
        self.race.pause();
        let chosen = choose(&self.meta).is_ok();
        if chosen {
            self.meta.ledger.attempt(now);
        }
        chosen
    }

    /// What the caller is told when no attempt is left.
    fn give_up(mut self) -> Result<Reply, CallError> {
        // Whoever has tried again in vain, or may not because too many do, tells the callers before it
        // not to: they would only add to it.
        let in_vain = self.meta.attempts() > 1 || self.skipped == Some(Skip::Budget);
        let warn = in_vain && !self.is_retry;
        match self.last.take() {
            Some(Failed::Reply(mut reply)) => {
                if warn {
                    verdict::push_back(&mut reply);
                }
                reply.exchange.commit();
                Ok(reply)
            }
            Some(Failed::Error(mut error, _)) => {
                if warn && self.retry().on.contains(error.statuses.grpc) {
                    error.pushback = Some(Pushback::Never);
                }
                Err(error)
            }
            None => Err(super::explain(&self.meta, crate::balance::PickError::AllTried)),
        }
    }
}

impl Failed {
    fn can_rewind(&self) -> bool {
        match self {
            Self::Reply(reply) => reply.exchange.can_rewind(),
            Self::Error(_, call) => call.is_some(),
        }
    }

    fn call(self) -> Option<Box<Call>> {
        match self {
            Self::Reply(reply) => reply.exchange.take_back(),
            Self::Error(_, call) => call,
        }
    }
}

impl Due {
    fn new(at: Instant, why: Why) -> Self {
        Self { timer: Alarm::at(at), why }
    }
}
