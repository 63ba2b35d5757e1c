//! One HTTP/2 connection of an application.

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::{
    RecvStream,
    server::{self, Connection, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::{spawn_local, yield_now},
    time::{sleep, timeout},
};
use tower::Service;

use super::{
    Accepted, Incoming,
    guard::{Guard, Guarded, Guards, Look, Watch},
    limits::{Breach, Breaches},
    serve::serve,
};
use crate::{
    alarm::Alarm,
    call::{Call, CallError, Downstream, Reply, Turns},
    config::ListenerLimits,
    drain::Drain,
    memory::Memory,
    panics::rehearse,
    pulse::Pulse,
    tls::{Failure, Secured, Server},
};

/// Bytes of one request body held for an endpoint that is slow to take it.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes of all request bodies of a connection. Wide, so that one call whose endpoint does not read
/// leaves room for the others.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of one answer held for an application that is slow to take it.
const SEND_BUFFER: usize = 128 << 10;
/// Largest head that is decoded. Far above what is let through (`max_header_size`), so that a call
/// with too much metadata is refused by itself and does not take its connection along: h2 ends the
/// connection at four times this.
const MAX_HEADER_LIST: u32 = 1 << 20;
/// What small DATA frames may cost before they are read: 16 000 of them. h2's own allowance would
/// end the connection of an application that writes thousands of small messages at once.
const DATA_FRAME_BUDGET: usize = 4 << 20;
/// Calls of one connection that begin before everybody else has had a turn; and where there is much to do for calls
/// that have begun. Fewer would stay with h2, which counts those that are reset meanwhile and ends the connection.
const TURN: u32 = 32;
const SHORT_TURN: u32 = 4;
/// How often a connection that was told to go away is looked at, and how long one that was cut off may
/// take to hear why.
const LINGER: Duration = Duration::from_secs(1);

/// What a worker has for all its connections.
#[derive(Clone, Debug)]
pub struct OfWorker {
    /// Whether it is stopping.
    pub drain: Rc<Drain>,
    /// What keeps its timer awake.
    pub pulse: Rc<Pulse>,
    /// Where is noted who went beyond a limit.
    pub breaches: Rc<Breaches>,
    /// The guards of its connections.
    pub guards: Rc<Guards>,
    /// The turns of those with many calls.
    pub turns: Rc<Turns>,
    /// How full the memory is.
    pub memory: Memory,
}

/// One accepted connection, until it is over.
///
/// Boxed, as is within it what only the beginning needs: the memory that is left is held for as long
/// as the connection is open, idle or not.
pub fn serve_connection<C>(
    incoming: Incoming,
    limits: Arc<ListenerLimits>,
    chain: C,
    worker: OfWorker,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let breaches = Rc::clone(&worker.breaches);
    let downstream = Downstream::new(&worker.turns);
    let guard = Rc::new(Guard::new(limits, incoming.accepted.source(), breaches, downstream));
    worker.guards.add(&guard);
    let registered = match (incoming.accepted, incoming.tls) {
        (Accepted::Tcp(stream), None) => TcpStream::from_std(stream).map(|stream| {
            Box::pin(run(stream, guard, chain, worker)) as Pin<Box<dyn Future<Output = ()>>>
        }),
        (Accepted::Tcp(stream), Some(server)) => TcpStream::from_std(stream)
            .map(|stream| Box::pin(run_tls(stream, server, guard, chain, worker)) as _),
        (Accepted::Unix(stream), _) => UnixStream::from_std(stream)
            .map(|stream| Box::pin(run(stream, guard, chain, worker)) as _),
    };
    registered.unwrap_or_else(|error| {
        tracing::debug!(%error, "connection not served");
        Box::pin(ready(()))
    })
}

async fn run_tls<C>(
    tcp: TcpStream,
    server: Arc<Server>,
    guard: Rc<Guard>,
    chain: C,
    worker: OfWorker,
) where
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let accepted = {
        let limit = guard.limits.header_timeout;
        // Whoever has not said who it is must not hold a process that stops.
        let stopping = pin!(async {
            worker.drain.begun().await;
            sleep(LINGER).await;
        });
        match select(Box::pin(server.accept(tcp, limit)), stopping).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        }
    };
    match accepted {
        Ok(Secured { stream, peer }) => {
            if let Some(peer) = peer {
                let _ = guard.identity.set(peer);
            }
            Box::pin(run(stream, guard, chain, worker)).await;
        }
        Err(failure) => tell(&failure, &guard),
    }
}

fn tell(failure: &Failure, guard: &Guard) {
    let peer = guard.source.map_or_else(String::new, |ip| ip.to_string());
    let reason = failure.why.as_str();
    tracing::info!(peer, reason, "TLS: no connection: {}", failure.text);
}

async fn run<T, C>(io: T, guard: Rc<Guard>, mut chain: C, worker: OfWorker)
where
    T: AsyncRead + AsyncWrite + Unpin,
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let OfWorker { drain, pulse, memory, .. } = worker;
    let io = Guarded::new(io, Rc::clone(&guard));
    let Some(mut connection) = Box::pin(begin(io, &guard, Rc::clone(&drain))).await else {
        return;
    };
    let mut begun = pin!(drain.begun());
    let mut told = false;
    let mut linger = Alarm::after(LINGER);
    let mut watch = Watch::new(&guard);
    let (mut calls, mut in_turn) = (0u32, 0);
    let breach = loop {
        let next = poll_fn(|cx| {
            let next = poll_next(cx, &mut connection, &guard, &mut watch, calls);
            if next.is_pending() {
                in_turn = 0;
                if guard.ends_turn() {
                    let _ = pin!(yield_now()).poll(cx);
                }
            }
            next
        });
        tokio::select! {
            biased;
            next = next => match next {
                Next::Call(request, respond) => {
                    pulse.beat();
                    calls = calls.wrapping_add(1);
                    in_turn += 1;
                    guard.call_came();
                    rehearse("connection");
                    let call = serve(request, respond, &guard, &drain, &memory, &mut chain);
                    call.into_iter().for_each(|call| drop(spawn_local(call)));
                }
                Next::Breach(breach) => break breach,
                Next::GoAway if !told => (told, linger) = (true, go_away(&mut connection)),
                Next::GoAway => {}
                Next::Ended(Some(error)) => {
                    if error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
                        guard.note(Breach::Http2);
                    }
                    return tracing::debug!(%error, "connection ended");
                }
                Next::Ended(None) => return,
            },
            () = &mut begun, if !told => (told, linger) = (true, go_away(&mut connection)),
            () = &mut linger, if told => {
                end_if_unused(&mut connection);
                linger = Alarm::after(LINGER);
            }
        }
        let has_had_its_turn = in_turn >= SHORT_TURN && guard.downstream.has_had_its_turn();
        if in_turn >= TURN || has_had_its_turn {
            in_turn = 0;
            // Not before the runtime has looked what has come for others.
            yield_now().await;
        }
    };
    guard.note(breach);
    Box::pin(cut_off(&mut connection, breach)).await;
}

/// What a connection brings; mostly calls, which are not boxed for the sake of the others.
#[allow(clippy::large_enum_variant, reason = "as said")]
enum Next {
    Call(Request<RecvStream>, SendResponse<Bytes>),
    Breach(Breach),
    GoAway,
    Ended(Option<h2::Error>),
}

fn poll_next<T: AsyncRead + AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    connection: &mut Connection<Guarded<T>, Bytes>,
    guard: &Guard,
    watch: &mut Watch,
    calls: u32,
) -> Poll<Next> {
    guard.polled_by(cx.waker());
    if guard.breach().is_none() {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                return Poll::Ready(Next::Call(request, respond));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Next::Ended(Some(error))),
            Poll::Ready(None) => return Poll::Ready(Next::Ended(None)),
            Poll::Pending => {
                let resets = guard.no_more_calls();
                if resets > 0 {
                    guard.breaches.note_many(Breach::Malformed, guard.source, resets);
                }
            }
        }
    }
    if let Some(breach) = guard.breach() {
        return Poll::Ready(Next::Breach(breach));
    }
    watch.poll(cx, guard, calls, || connection.has_streams()).map(|found| match found {
        Look::Breach(breach) => Next::Breach(breach),
        Look::Idle | Look::Old => Next::GoAway,
    })
}

/// Exchanges prefaces; none if the client has no good one in time.
async fn begin<T>(
    io: Guarded<T>,
    guard: &Guard,
    drain: Rc<Drain>,
) -> Option<Connection<Guarded<T>, Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = server::Builder::new()
        .max_concurrent_streams(guard.limits.max_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .data_frame_budget(DATA_FRAME_BUDGET)
        // It would count them for as long as the connection is there; the guard does for a while.
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(io);
    let limit = guard.limits.header_timeout;
    let late = async {
        // Whoever has nothing to say yet must not hold a process that stops.
        match timeout(limit, drain.begun()).await {
            Ok(()) => sleep(LINGER.min(limit)).await,
            Err(_) => guard.note(Breach::HeaderTimeout),
        }
    };
    tokio::select! {
        handshake = handshake => handshake
            .inspect_err(|error| tracing::debug!(%error, "connection without an HTTP/2 preface"))
            .ok(),
        () = late => {
            tracing::debug!("connection without a preface in time");
            None
        }
    }
}

/// Ends a connection and all its calls, with the reason where that can still be said.
async fn cut_off<T>(connection: &mut Connection<Guarded<T>, Bytes>, breach: Breach)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
    if matches!(breach, Breach::Stalled | Breach::Memory) {
        // What it holds goes at once; the reason goes where there is room for it.
        poll_fn(|cx| {
            let _ = connection.poll_closed(cx);
            Poll::Ready(())
        })
        .await;
        return;
    }
    // Closed with bytes unread, the system would throw away what has not been sent. Nor are they read:
    // who floods has to wait.
    let said = async {
        let closed = poll_fn(|cx| connection.poll_closed(cx)).await;
        tracing::debug!(?closed, "a connection was told why it is cut off");
        pending::<()>().await;
    };
    let _ = timeout(LINGER, said).await;
}

/// Tells the client to call elsewhere; the alarm is for a look at whether it does.
fn go_away<T: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<T, Bytes>) -> Alarm {
    connection.graceful_shutdown();
    Alarm::after(LINGER)
}

/// h2 ends a connection once the client has answered a PING. A client that does not answer must not
/// hold the process.
fn end_if_unused<T: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<T, Bytes>) {
    if !connection.has_streams() {
        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_at_rest_holds_little_besides_what_h2_does() {
        let (io, _peer) = tokio::io::duplex(1);
        let chain =
            tower::service_fn(|_: Box<Call>| std::future::pending::<Result<Reply, CallError>>());
        let breaches = Rc::new(Breaches::new(&crate::metrics::Metrics::new()));
        let downstream = Downstream::default();
        let guard = Rc::new(Guard::new(Arc::default(), None, Rc::clone(&breaches), downstream));
        let worker = OfWorker {
            drain: Rc::default(),
            pulse: Rc::default(),
            breaches,
            guards: Rc::default(),
            turns: Rc::default(),
            memory: Memory::default(),
        };
        let whole = size_of_val(&run(io, guard, chain, worker));
        let of_h2 = size_of::<Connection<tokio::io::DuplexStream, Bytes>>();
        assert!(whole < of_h2 + 512, "{whole} bytes, of which h2 has {of_h2}");
    }
}
