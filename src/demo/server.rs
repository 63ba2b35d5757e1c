//! A gRPC server that says its name: `/demo.Echo/Say`, one string in, one string out.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet, spawn_local},
};

/// A server that can be killed and revived at the same address.
pub(super) struct Server {
    name: &'static str,
    address: SocketAddr,
    running: Option<AbortHandle>,
}

impl Server {
    /// Listens on `address`; port 0 lets the system choose.
    pub(super) fn start(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let running = spawn_local(accept(TcpListener::from_std(listener)?, name)).abort_handle();
        Ok(Self { name, address, running: Some(running) })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and every connection at once, as a killed process does.
    pub(super) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            while !running.is_finished() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Listens again, at the address it had.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        *self = Self::start(self.name, self.address)?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, name: &'static str) {
    // Connections end with the set, and the set with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn_local(serve(stream, name));
    }
}

async fn serve(stream: TcpStream, name: &'static str) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        spawn_local(async move { drop(answer(request, respond, name).await) });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    name: &'static str,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut message = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        message.extend_from_slice(&piece);
    }
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("server-name", HeaderValue::from_static(name));
    if let Some(attempt) = head.headers.get("pillion-attempt") {
        headers.insert("seen-attempt", attempt.clone());
    }
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(message.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
