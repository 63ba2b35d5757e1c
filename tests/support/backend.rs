//! An endpoint: an HTTP/2 server that answers as the test says, and counts what reaches it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Response, request};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::client::read_all;
use crate::program::endpoint;
use crate::wait::soon;

/// A server on a free port, ended with the value.
#[derive(Debug)]
pub(crate) struct Backend {
    address: SocketAddr,
    seen: Arc<Seen>,
    going_away: watch::Sender<()>,
    closing: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Keeps the port from others, who would get its calls once it has ended.
    port: Arc<Socket>,
}

/// What has reached it.
#[derive(Debug, Default)]
struct Seen {
    counts: watch::Sender<Counts>,
    last_head: Mutex<Option<request::Parts>>,
}

/// How much has reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections accepted.
    pub(crate) accepted: usize,
    /// Connections that are open.
    pub(crate) open: usize,
    /// Calls whose head has come.
    pub(crate) calls: usize,
    /// Calls that the caller gave up.
    pub(crate) cancelled: usize,
    /// Most calls that came on one connection.
    pub(crate) most_on_one: usize,
}

/// A call that has reached it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head: request::Parts,
    pub(crate) body: RecvStream,
    respond: SendResponse<Bytes>,
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Backend {
    /// Sends every message back.
    pub(crate) async fn echo() -> Self {
        Self::start(Incoming::echo).await
    }

    /// Answers with `answer`.
    pub(crate) async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(&server::Builder::new(), answer).await
    }

    /// Answers with `answer`, on connections with settings of the test's.
    pub(crate) async fn start_with<A, F>(builder: &server::Builder, answer: A) -> Self
    where
        A: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serve(Arc::new(bound(([127, 0, 0, 1], 0).into())), builder, answer)
    }

    /// Sends every message back, at the address of this one, which has ended.
    pub(crate) async fn restarted(&self) -> Self {
        Self::serve(Arc::clone(&self.port), &server::Builder::new(), Incoming::echo)
    }

    fn serve<A, F>(port: Arc<Socket>, builder: &server::Builder, answer: A) -> Self
    where
        A: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let listener = bound(address);
        listener.listen(1024).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let (going_away, told) = watch::channel(());
        let (closing, mut closed) = watch::channel(false);
        let seen = Arc::<Seen>::default();
        let (answer, builder, shared) = (Arc::new(answer), builder.clone(), Arc::clone(&seen));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    _ = closed.wait_for(|closed| *closed) => break,
                };
                let server =
                    Server { address, seen: Arc::clone(&shared), answer: Arc::clone(&answer) };
                connections.spawn(server.serve(tcp, builder.clone(), told.clone()));
                while connections.try_join_next().is_some() {}
            }
            drop(listener);
            connections.join_all().await;
        });
        Self { address, seen, going_away, closing, serving, port }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its line in the file of endpoints.
    pub(crate) fn as_endpoint(&self, service: &str) -> String {
        endpoint(service, self.address, "")
    }

    /// The same, with further keys in TOML.
    pub(crate) fn as_endpoint_with(&self, service: &str, keys: &str) -> String {
        endpoint(service, self.address, keys)
    }

    /// What has reached it until now.
    pub(crate) fn counts(&self) -> Counts {
        *self.seen.counts.borrow()
    }

    /// Waits until what has reached it is so.
    pub(crate) async fn until(&self, what: &str, so: impl FnMut(&Counts) -> bool) -> Counts {
        *soon(what, self.seen.counts.subscribe().wait_for(so)).await.unwrap()
    }

    /// Head of the newest call.
    pub(crate) fn last_head(&self) -> request::Parts {
        self.seen.last_head.lock().unwrap().clone().expect("a call has come")
    }

    /// Tells GOAWAY on every connection that is open, and ends it after its last call.
    pub(crate) fn go_away(&self) {
        self.going_away.send_replace(());
    }

    /// Ends as an orderly process does: the port refuses, and connections end after their last call.
    pub(crate) async fn close(&mut self) {
        self.closing.send_replace(true);
        self.go_away();
        let _ = (&mut self.serving).await;
    }

    /// Ends as a killed process does: the port refuses, connections are closed.
    pub(crate) async fn kill(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        self.until("its connections are closed", |counts| counts.open == 0).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Server<A> {
    address: SocketAddr,
    seen: Arc<Seen>,
    answer: Arc<A>,
}

impl<A, F> Server<A>
where
    A: Fn(Incoming) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    async fn serve(self, tcp: TcpStream, builder: server::Builder, mut told: watch::Receiver<()>) {
        let _open = Open::new(&self.seen);
        tcp.set_nodelay(true).unwrap();
        let (tcp, rest) = split_off(tcp);
        let Ok(mut connection) = builder.handshake(tcp).await else { return };
        told.mark_unchanged();
        let mut calls = tokio::task::JoinSet::new();
        let mut count = 0;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let (head, body) = request.into_parts();
                        *self.seen.last_head.lock().unwrap() = Some(head.clone());
                        count += 1;
                        self.seen.counts.send_modify(|counts| {
                            counts.calls += 1;
                            counts.most_on_one = counts.most_on_one.max(count);
                        });
                        let (address, seen) = (self.address, Arc::clone(&self.seen));
                        calls.spawn((self.answer)(Incoming { head, body, respond, address, seen }));
                    }
                    Some(Err(_)) => return,
                    None => break,
                },
                Ok(()) = told.changed() => connection.graceful_shutdown(),
                Some(_) = calls.join_next() => {}
            }
        }
        drop(connection);
        linger(rest).await;
    }
}

/// A second handle of the socket, which keeps it open when the first is closed.
fn split_off(tcp: TcpStream) -> (TcpStream, TcpStream) {
    let tcp = tcp.into_std().unwrap();
    let rest = tcp.try_clone().unwrap();
    (TcpStream::from_std(tcp).unwrap(), TcpStream::from_std(rest).unwrap())
}

/// Reads until the peer has closed, too, as servers do: a socket that is closed with something unread
/// resets the connection, and the peer may lose the GOAWAY that it has not read yet.
async fn linger(mut rest: TcpStream) {
    let mut unread = [0; 4096];
    let until_closed = async { while matches!(rest.read(&mut unread).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), until_closed).await;
}

/// Counts an open connection until it is dropped.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(Arc::clone(seen))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

impl Incoming {
    /// Sends the head of a gRPC answer, which says who answers.
    pub(crate) fn begin(&mut self) -> SendStream<Bytes> {
        self.try_begin().unwrap()
    }

    fn try_begin(&mut self) -> Result<SendStream<Bytes>, h2::Error> {
        let mut head = Response::new(());
        let headers = head.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("backend", self.address.to_string().parse().unwrap());
        self.respond.send_response(head, false)
    }

    /// Sends a head of the test's.
    pub(crate) fn begin_with(&mut self, head: Response<()>, end: bool) -> SendStream<Bytes> {
        self.respond.send_response(head, end).unwrap()
    }

    /// Reads the whole body.
    pub(crate) async fn read(&mut self) -> Result<Bytes, h2::Error> {
        read_all(&mut self.body).await
    }

    /// Sends all messages back, once all have come.
    pub(crate) async fn echo(mut self) {
        let waiting = self.counts_as_cancelled();
        let Ok(body) = self.read().await else { return };
        waiting.end();
        // The caller may have given up meanwhile.
        let Ok(mut stream) = self.try_begin() else { return };
        let _ = stream.send_data(body, false);
        let _ = stream.send_trailers(trailers(0));
    }

    /// Does not answer; returns when the caller has given up.
    pub(crate) async fn never(mut self) {
        let _waiting = self.counts_as_cancelled();
        let _ = std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    /// Does not end the answer that it has begun; returns when the caller has given up.
    pub(crate) async fn hold(self, mut answer: SendStream<Bytes>) {
        let _waiting = self.counts_as_cancelled();
        let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
    }

    /// Ends the call without an answer.
    pub(crate) fn reset(mut self, code: h2::Reason) {
        self.respond.send_reset(code);
    }

    fn counts_as_cancelled(&self) -> Waiting {
        Waiting(Some(Arc::clone(&self.seen)))
    }
}

/// Counts a call as cancelled if it is dropped before it is over, be it with its connection.
struct Waiting(Option<Arc<Seen>>);

impl Waiting {
    fn end(mut self) {
        self.0.take();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(seen) = &self.0 {
            seen.counts.send_modify(|counts| counts.cancelled += 1);
        }
    }
}

/// A socket that refuses connections until it listens.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Trailers of a gRPC answer.
pub(crate) fn trailers(status: u8) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(u16::from(status)))])
}

/// Sends as fast as the other side takes it, and waits until all is handed over.
///
/// # Errors
/// The other side broke off.
pub(crate) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        let room = room?.min(data.len());
        stream.send_data(data.split_to(room), false)?;
    }
    Ok(())
}
