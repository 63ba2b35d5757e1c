//! What one attempt has to keep to, where the call may be tried again: its time, and a head that is held
//! back.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{StatusCode, response};

use crate::{
    alarm::Alarm,
    call::{Exchange, Failed, Terms},
    clock,
};

/// Watches one attempt from when it was sent.
#[derive(Debug)]
pub(super) struct Watch {
    hold: bool,
    /// How long it may take, and the end of that.
    limit: Option<(Duration, Alarm)>,
    /// The head, while it is held back.
    held: Option<response::Parts>,
}

/// Why an attempt has no answer.
#[derive(Debug)]
pub(super) enum Ended {
    /// It failed.
    Failed(Failed),
    /// It took longer than this.
    Late(Duration),
}

impl Watch {
    /// None where the attempt has to keep to nothing.
    pub(super) fn new(terms: Terms) -> Option<Box<Self>> {
        let limit = terms.limit.map(|limit| (limit, Alarm::after(limit)));
        let any = terms.hold || limit.is_some();
        any.then(|| Box::new(Self { hold: terms.hold, limit, held: None }))
    }

    /// Waits for the head of the answer, and while that is to be held back for what follows it. Where
    /// the answer is the caller's in any case, it is committed.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<response::Parts, Ended>> {
        if let Poll::Ready(head) = self.poll_answer(cx, exchange) {
            return Poll::Ready(head.map_err(Ended::Failed));
        }
        let Some((limit, timer)) = &mut self.limit else { return Poll::Pending };
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(Err(Ended::Late(*limit)))
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<response::Parts, Failed>> {
        if self.held.is_none() {
            let head = ready!(exchange.poll_head(cx))?;
            exchange.meta().ledger.answered(clock::now());
            let hold = self.hold && exchange.can_rewind();
            let is_all = exchange.is_over() || head.status != StatusCode::OK;
            // Until the call is sent, the endpoint may wait for more of it, and the caller for the head.
            if !hold || !(is_all || exchange.is_sent()) {
                exchange.commit();
                return Poll::Ready(Ok(head));
            }
            // Nothing behind this head matters; whoever asked to hold it decides what becomes of it.
            if is_all {
                return Poll::Ready(Ok(head));
            }
            self.held = Some(head);
        }
        ready!(exchange.poll_first(cx))?;
        match self.held.take() {
            Some(head) => Poll::Ready(Ok(head)),
            None => Poll::Pending,
        }
    }
}
