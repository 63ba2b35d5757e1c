//! One call, from its head to the end of its answer.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tower::Service;

use super::{
    answer,
    guard::Guard,
    limits::{Breach, Breaches},
};
use crate::{
    alarm::{Alarm, Bell},
    call::{Broken, Call, CallError, CallMeta, Exchange, Head, Outcome, Reply, Terms, Upload},
    clock,
    config::ListenerLimits,
    middleware::exceeded,
    model::Reason,
};

/// Puts a call on the chain; the future that comes back is the call.
pub(super) fn serve<C>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    guard: &Rc<Guard>,
    breaches: &Breaches,
    chain: &mut C,
) -> impl Future<Output = ()> + use<C>
where
    C: Service<Box<Call>, Response = Reply, Error = CallError>,
{
    clock::hold(|| {
        let (head, body) = request.into_parts();
        let meta = Rc::new(CallMeta::new(&head, guard.source, guard.identity.get().cloned()));
        if let Err((breach, error)) = check_size(&head.headers, &guard.limits) {
            breaches.note(breach, guard.source);
            meta.refused.set(Some(Box::new(error)));
        }
        let call = Box::new(Call {
            head: Head::new(head),
            upload: Upload::new(body),
            meta: Rc::clone(&meta),
            terms: Terms::default(),
        });
        let replying = chain.call(call);
        Serving { call: finish(replying, respond, meta, Rc::clone(guard)), bell: Bell::default() }
    })
}

pin_project_lite::pin_project! {
    /// A call, each poll of which happens at one time.
    struct Serving<F> {
        #[pin]
        call: F,
        bell: Bell,
    }
}

impl<F: Future<Output = ()>> Future for Serving<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        clock::hold(|| this.bell.poll(cx, |cx| this.call.poll(cx)))
    }
}

async fn finish(
    replying: impl Future<Output = Result<Reply, CallError>>,
    mut respond: SendResponse<Bytes>,
    meta: Rc<CallMeta>,
    guard: Rc<Guard>,
) {
    let reply = {
        let mut replying = pin!(replying);
        let mut asked = false;
        poll_fn(|cx| {
            // A call that was reset before anyone looked at it must not reach an endpoint.
            let first = !mem::replace(&mut asked, true);
            if first && respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            match replying.as_mut().poll(cx) {
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
        Some(_) => guard.answered(),
        None => guard.broke_off(&meta),
    }
    match reply {
        Some(Ok(reply)) => relay(reply, respond, &meta).await,
        Some(Err(error)) => {
            answer::refuse(&mut respond, &meta, &error);
            meta.fail(error);
        }
        None => {}
    }
}

/// The sizes that a head may have. One that is larger still, h2 answers with 431.
fn check_size(headers: &HeaderMap, limits: &ListenerLimits) -> Result<(), (Breach, CallError)> {
    let refuse = |breach: Breach, text| Err((breach, CallError::new(Reason::Overloaded, text)));
    let (count, most) = (headers.len(), limits.max_headers);
    if count > most as usize {
        let text = format!("{count} headers, at most {most} are let through; see max_headers");
        return refuse(Breach::Headers, text);
    }
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let most = limits.max_header_size;
    if bytes > most as usize {
        let text = format!(
            "metadata of {bytes} bytes, at most {most} are let through; see max_header_size"
        );
        return refuse(Breach::HeaderSize, text);
    }
    Ok(())
}

/// Passes the answer on: head, body, trailers.
async fn relay(reply: Reply, mut respond: SendResponse<Bytes>, meta: &CallMeta) {
    let Reply { mut head, mut exchange, mut deadline } = reply;
    answer::explain(&mut head.headers, meta);
    let over = exchange.is_over();
    // It can only fail when the stream is gone: then the call is cancelled, which it is by default.
    let Ok(mut down) = respond.send_response(Response::from_parts(head, ()), over) else { return };
    if over {
        return;
    }
    let ended = poll_fn(|cx| poll_relay(cx, &mut exchange, &mut down, deadline.as_mut())).await;
    match ended {
        Ok(()) => {}
        Err(End::Broken(Broken::Cancelled)) => {}
        Err(End::Broken(Broken::Reset(code))) => {
            meta.finish(Outcome::Reset);
            down.send_reset(code);
        }
        Err(End::Broken(Broken::Lost(error))) => {
            answer::break_off(&mut down, meta, &error);
            meta.fail(error);
        }
        Err(End::Late) => {
            let error = exceeded(meta);
            answer::break_off(&mut down, meta, &error);
            meta.fail(error);
        }
    }
}

/// How a relay ends early.
enum End {
    Broken(Broken),
    Late,
}

fn poll_relay(
    cx: &mut Context<'_>,
    exchange: &mut Exchange,
    down: &mut SendStream<Bytes>,
    deadline: Option<&mut Alarm>,
) -> Poll<Result<(), End>> {
    if let Poll::Ready(ended) = exchange.poll_body(cx, down) {
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
