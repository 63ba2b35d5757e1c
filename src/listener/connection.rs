//! One HTTP/2 connection of an application.

use std::{
    future::{Future, ready},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::server::{self, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::spawn_local,
    time::{sleep, timeout},
};
use tower::Service;

use super::{Accepted, Incoming, serve::serve};
use crate::{
    alarm::Alarm,
    call::{Call, CallError, Reply},
    drain::Drain,
    pulse::Pulse,
    tls::Server,
};

/// From accept to the end of the client's preface.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 1000;
/// Bytes of one request body held for an endpoint that is slow to take it.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes of all request bodies of a connection. Wide, so that one call whose endpoint does not read
/// leaves room for the others.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of one answer held for an application that is slow to take it.
const SEND_BUFFER: usize = 128 << 10;
/// Largest head that is decoded. Far above what is let through (see `admit`), so that a call with
/// too much metadata is refused by itself and does not take its connection along: h2 ends the
/// connection at four times this.
const MAX_HEADER_LIST: u32 = 1 << 20;
/// What small DATA frames may cost before they are read: 16 000 of them. h2's own allowance would
/// end the connection of an application that writes thousands of small messages at once.
const DATA_FRAME_BUDGET: usize = 4 << 20;
/// How often a connection that was told to go away is looked at.
const LINGER: Duration = Duration::from_secs(1);

/// One accepted connection, until it is over.
///
/// Boxed, as is within it what only the beginning needs: the memory that is left is held for as long
/// as the connection is open, idle or not.
pub fn serve_connection<C>(
    incoming: Incoming,
    chain: C,
    drain: Rc<Drain>,
    pulse: Rc<Pulse>,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let registered = match (incoming.accepted, incoming.tls) {
        (Accepted::Tcp(stream), None) => TcpStream::from_std(stream).map(|stream| {
            let source = stream.peer_addr().ok().map(|peer| peer.ip());
            Box::pin(run(stream, source, chain, drain, pulse)) as Pin<Box<dyn Future<Output = ()>>>
        }),
        (Accepted::Tcp(stream), Some(server)) => TcpStream::from_std(stream)
            .map(|stream| Box::pin(run_tls(stream, server, chain, drain, pulse)) as _),
        (Accepted::Unix(stream), _) => UnixStream::from_std(stream)
            .map(|stream| Box::pin(run(stream, None, chain, drain, pulse)) as _),
    };
    registered.unwrap_or_else(|error| {
        tracing::debug!(%error, "connection not served");
        Box::pin(ready(()))
    })
}

async fn run_tls<C>(
    tcp: TcpStream,
    server: Arc<Server>,
    chain: C,
    drain: Rc<Drain>,
    pulse: Rc<Pulse>,
) where
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let source = tcp.peer_addr().ok().map(|peer| peer.ip());
    match Box::pin(server.accept(tcp, HANDSHAKE)).await {
        Ok(secured) => Box::pin(run(secured.stream, source, chain, drain, pulse)).await,
        Err(failure) => {
            let peer = source.map_or_else(String::new, |ip| ip.to_string());
            tracing::info!(
                peer,
                reason = failure.why.as_str(),
                "TLS: no connection: {}",
                failure.text
            );
        }
    }
}

async fn run<T, C>(io: T, source: Option<IpAddr>, mut chain: C, drain: Rc<Drain>, pulse: Rc<Pulse>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    C: Service<Box<Call>, Response = Reply, Error = CallError> + 'static,
    C::Future: 'static,
{
    let Some(mut connection) = Box::pin(begin(io, Rc::clone(&drain))).await else { return };
    let mut begun = pin!(drain.begun());
    let mut told = false;
    let mut linger = Alarm::after(LINGER);
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    pulse.beat();
                    // Boxed: the runtime moves what it is given several times.
                    spawn_local(Box::pin(serve(request, respond, source, &mut chain)));
                }
                Some(Err(error)) => return tracing::debug!(%error, "connection ended"),
                None => return,
            },
            () = &mut begun, if !told => {
                told = true;
                connection.graceful_shutdown();
                linger = Alarm::after(LINGER);
            }
            () = &mut linger, if told => {
                end_if_unused(&mut connection);
                linger = Alarm::after(LINGER);
            }
        }
    }
}

/// Exchanges prefaces; none if the client has no good one in time.
async fn begin<T>(io: T, drain: Rc<Drain>) -> Option<Connection<T, Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .handshake::<_, Bytes>(io);
    let late = async {
        // Whoever has nothing to say yet must not hold a process that stops.
        let _ = timeout(HANDSHAKE - LINGER, drain.begun()).await;
        sleep(LINGER).await;
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
        let (drain, pulse) = Default::default();
        let whole = size_of_val(&run(io, None, chain, drain, pulse));
        let of_h2 = size_of::<Connection<tokio::io::DuplexStream, Bytes>>();
        assert!(whole < of_h2 + 512, "{whole} bytes, of which h2 has {of_h2}");
    }
}
