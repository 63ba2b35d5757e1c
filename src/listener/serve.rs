//! One call, from its head to the end of its answer.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response};
use tower::Service;

use super::{
    answer,
    guard::{Burden, Guard},
    limits::Breach,
    patience::Patience,
    wellformed,
};
use crate::{
    alarm::{Alarm, Bell},
    call::{
        Broken, Call, CallError, CallMeta, Downstream, Exchange, Head, Outcome, Reply, Terms, Turn,
        Upload,
    },
    clock,
    drain::{Drain, Stay},
    memory::{Memory, Stage},
    middleware::exceeded,
    model::Reason,
    panics::{Panicked, Task, caught, rehearse},
};

/// Puts a call on the chain; the future that comes back is the call. None where it is over already.
///
/// Boxed here, for the runtime and all on the way to it move what they are given.
pub(super) fn serve<C>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    guard: &Rc<Guard>,
    drain: &Rc<Drain>,
    memory: &Memory,
    chain: &mut C,
) -> Option<Pin<Box<impl Future<Output = ()> + use<C>>>>
where
    C: Service<Box<Call>, Response = Reply, Error = CallError>,
{
    clock::hold(|| {
        let (head, body) = request.into_parts();
        let (identity, downstream) = (guard.identity.get().cloned(), guard.downstream.clone());
        let meta = Rc::new(CallMeta::new(&head, guard.source, identity, downstream.clone()));
        let begun = caught(Task::Call, || {
            let checked = wellformed::check(&head, &guard.limits);
            let size = checked.and_then(|size| room_for(size, memory)).unwrap_or_else(|refused| {
                let (breach, error) = refused;
                breach.iter().for_each(|breach| guard.note(*breach));
                meta.refused.set(Some(Box::new(error)));
                0
            });
            let burden = Burden::new(guard, size);
            let call = Box::new(Call {
                head: Head::new(head),
                upload: Upload::new(body),
                meta: Rc::clone(&meta),
                terms: Terms::default(),
            });
            (chain.call(call), burden)
        });
        match begun {
            Ok((replying, burden)) => {
                let stay = Stay::new(Rc::clone(drain));
                let call = finish(replying, respond, meta, burden, stay);
                let (bell, turn) = (Bell::default(), Turn::new(&downstream));
                Some(Box::pin(Serving { call, bell, turn, downstream }))
            }
            Err(Panicked) => {
                refuse(&mut respond, &meta, broken());
                None
            }
        }
    })
}

/// What the caller is told of a panic. Where it was is for the log.
fn broken() -> CallError {
    CallError::new(Reason::Internal, "a mistake in this proxy ended the call; its log says where")
}

fn refuse(respond: &mut SendResponse<Bytes>, meta: &CallMeta, error: CallError) {
    answer::refuse(respond, meta, &error);
    meta.fail(error);
}

/// Whether there is memory for one more call, with a head of this size.
fn room_for(size: usize, memory: &Memory) -> Result<usize, wellformed::Refused> {
    if memory.stage() >= Stage::Calls {
        let text = "this proxy has no memory for more calls; see max_memory";
        return Err((Some(Breach::Memory), CallError::overloaded(text, None)));
    }
    Ok(size)
}

pin_project_lite::pin_project! {
    /// A call, each poll of which happens at one time, when it is its turn.
    struct Serving<F> {
        #[pin]
        call: F,
        bell: Bell,
        turn: Turn,
        downstream: Downstream,
    }
}

impl<F: Future<Output = ()>> Future for Serving<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.turn.take(this.downstream, cx, |cx| {
            clock::hold(|| this.bell.poll(cx, |cx| this.call.poll(cx)))
        });
        polled.unwrap_or(Poll::Pending)
    }
}

async fn finish(
    replying: impl Future<Output = Result<Reply, CallError>>,
    mut respond: SendResponse<Bytes>,
    meta: Rc<CallMeta>,
    burden: Burden,
    mut stay: Stay,
) {
    let reply = {
        let mut replying = pin!(replying);
        let mut asked = false;
        poll_fn(|cx| {
            if stay.poll(cx).is_ready() {
                return Poll::Ready(Some(Err(stopped())));
            }
            // A call that was reset before anyone looked at it must not reach an endpoint.
            let first = !mem::replace(&mut asked, true);
            if first && respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            let polled = caught(Task::Call, || {
                rehearse("call waits");
                replying.as_mut().poll(cx)
            });
            match polled.unwrap_or_else(|Panicked| Poll::Ready(Err(broken()))) {
                Poll::Ready(Ok(reply)) => Poll::Ready(Some(Ok(reply))),
                failed_or_pending if first => failed_or_pending.map(Some),
                // The caller may go away before there is anything to tell it, which also ends the call.
                failed_or_pending => match respond.poll_reset(cx) {
                    Poll::Ready(_) => Poll::Ready(None),
                    Poll::Pending => failed_or_pending.map(Some),
                },
            }
        })
        .await
    };
    match &reply {
        Some(_) => burden.guard().answered(),
        None => burden.guard().broke_off(&meta),
    }
    match reply {
        Some(Ok(reply)) => relay(reply, respond, &meta, burden, stay).await,
        Some(Err(error)) => refuse(&mut respond, &meta, error),
        None => {}
    }
}

/// Passes the answer on: head, body, trailers.
async fn relay(
    reply: Reply,
    mut respond: SendResponse<Bytes>,
    meta: &CallMeta,
    mut burden: Burden,
    mut stay: Stay,
) {
    let Reply { mut head, mut exchange, mut deadline } = reply;
    answer::explain(&mut head.headers, meta);
    let over = exchange.is_over();
    // It can only fail when the stream is gone: then the call is cancelled, which it is by default.
    let Ok(mut down) = respond.send_response(Response::from_parts(head, ()), over) else { return };
    if over {
        return;
    }
    let mut patience = Patience::default();
    let ended = poll_fn(|cx| {
        let going = caught(Task::Call, || {
            rehearse("call is answered");
            poll_relay(cx, &mut exchange, &mut down, deadline.as_mut(), &mut burden)
        });
        let lost = |Panicked| Poll::Ready(Err(End::Broken(Broken::Lost(broken()))));
        let going = going.unwrap_or_else(lost);
        if going.is_pending() {
            if stay.poll(cx).is_ready() {
                return Poll::Ready(Err(End::Stopped));
            }
            let lost = patience.poll(cx, &mut exchange, &mut burden);
            return lost.map(|breach| Err(End::Untaken(breach)));
        }
        going
    })
    .await;
    let error = match ended {
        Ok(()) | Err(End::Broken(Broken::Cancelled)) => return,
        Err(End::Broken(Broken::Reset(code))) => {
            meta.finish(Outcome::Reset);
            return down.send_reset(code);
        }
        Err(End::Untaken(breach)) => {
            burden.guard().note(breach);
            let text = format!("the application does not take the answer; see {}", breach.as_str());
            meta.fail(CallError::new(Reason::Overloaded, text));
            // Trailers would have to wait behind what it does not take.
            return down.send_reset(Code::ENHANCE_YOUR_CALM);
        }
        Err(End::Broken(Broken::Lost(error))) => error,
        Err(End::Late) => exceeded(meta),
        Err(End::Stopped) => stopped(),
    };
    answer::break_off(&mut down, meta, &error);
    meta.fail(error);
}

/// Why a call that is left at the end of a drain has to end.
fn stopped() -> CallError {
    let text =
        "this proxy is stopping, and drain_timeout has passed; the call may have been processed";
    CallError::new(Reason::Draining, text)
}

/// How a relay ends early.
enum End {
    Broken(Broken),
    Late,
    /// With this proxy.
    Stopped,
    /// The application does not take it.
    Untaken(Breach),
}

fn poll_relay(
    cx: &mut Context<'_>,
    exchange: &mut Exchange,
    down: &mut SendStream<Bytes>,
    deadline: Option<&mut Alarm>,
    burden: &mut Burden,
) -> Poll<Result<(), End>> {
    let relayed = if burden.has_to_wait(cx) {
        exchange.poll_ahead(cx).map(Err)
    } else {
        let relayed = exchange.poll_body(cx, down);
        burden.has_handed_over(exchange.handed_over());
        relayed
    };
    if let Poll::Ready(ended) = relayed {
        return Poll::Ready(ended.map_err(End::Broken));
    }
    if down.poll_reset(cx).is_ready() {
        return Poll::Ready(Err(End::Broken(Broken::Cancelled)));
    }
    match deadline.map(|timer| Pin::new(timer).poll(cx)) {
        Some(Poll::Ready(())) => Poll::Ready(Err(End::Late)),
        _ => Poll::Pending,
    }
}
