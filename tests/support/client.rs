//! An HTTP/2 client that shows everything: heads, trailers, resets.

use std::{net::SocketAddr, path::Path};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

use crate::wait::soon;

/// One connection to a proxy.
#[derive(Debug)]
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) answer: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    /// Connects with windows wide enough not to matter.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut builder = Builder::new();
        builder.initial_window_size(8 << 20).initial_connection_window_size(64 << 20);
        Self::connect_with(address, &builder).await
    }

    /// Connects with settings of the test's.
    pub(crate) async fn connect_with(address: SocketAddr, builder: &Builder) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, builder).await
    }

    /// Connects to a Unix domain socket.
    pub(crate) async fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap(), &Builder::new()).await
    }

    /// Speaks HTTP/2 on a connection that is there already.
    pub(crate) async fn over<T>(io: T, builder: &Builder) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = builder.handshake(io).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Begins a call whose body follows.
    pub(crate) async fn begin(&self, head: Request<()>) -> Call {
        let mut send = soon("a place for a stream", self.send.clone().ready()).await.unwrap();
        let (answer, body) = send.send_request(head, false).unwrap();
        Call { answer, body }
    }

    /// Sends a whole request.
    pub(crate) async fn send(&self, head: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let mut send = soon("a place for a stream", self.send.clone().ready()).await?;
        let (answer, mut up) = send.send_request(head, body.is_empty())?;
        if !body.is_empty() {
            up.send_data(Bytes::copy_from_slice(body), true)?;
        }
        soon("an answer", Answer::read(answer)).await
    }

    /// A gRPC call with one message.
    pub(crate) async fn call(&self, service: &str) -> Answer {
        self.send(grpc(service), &message(b"hello")).await.unwrap()
    }

    /// Waits until the connection is over.
    pub(crate) async fn ended(&mut self) -> Result<(), h2::Error> {
        soon("the end of the connection", &mut self.connection).await.unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Closes the socket, whatever is still open on it.
        self.connection.abort();
    }
}

impl Answer {
    /// Reads all of an answer.
    pub(crate) async fn read(answer: ResponseFuture) -> Result<Self, h2::Error> {
        let (head, mut stream) = answer.await?.into_parts();
        let body = read_all(&mut stream).await?;
        let trailers = stream.trailers().await?;
        Ok(Self { head, body, trailers })
    }

    /// A header of head or trailers.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        self.head.headers.get(name).or(trailers).map(|value| value.to_str().unwrap())
    }

    /// Status of a gRPC call.
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        self.header("grpc-status").map(|status| status.parse().unwrap())
    }

    /// Whether a gRPC call succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.grpc_status() == Some(0)
    }

    /// Which backend answered; see [`crate::backend::Backend`].
    pub(crate) fn from(&self) -> SocketAddr {
        self.header("backend").expect("an answer of a backend").parse().unwrap()
    }
}

/// Reads a body as fast as it comes.
pub(crate) async fn read_all(stream: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Head of a gRPC call to `authority`.
pub(crate) fn grpc(authority: &str) -> Request<()> {
    grpc_with(authority, &[])
}

/// Head of a gRPC call with further headers.
pub(crate) fn grpc_with(authority: &str, headers: &[(&str, &str)]) -> Request<()> {
    let uri = format!("http://{authority}/pillion.test.Echo/Unary");
    let mut request = Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    for (name, value) in headers {
        let name = name.parse::<http::HeaderName>().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// Head of a request that is not gRPC.
pub(crate) fn get(authority: &str) -> Request<()> {
    Request::get(format!("http://{authority}/page")).body(()).unwrap()
}

/// A message with its gRPC prefix.
pub(crate) fn message(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text].concat()
}
