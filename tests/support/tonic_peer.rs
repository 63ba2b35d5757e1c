//! The echo service of the tests with tonic, as server and as client. `tests/peers/` has the same in
//! Python; `echo.proto` there says what the methods do.
//!
//! A message is its bytes, as the proxy sees it: no schema is needed to pass one on.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{KeyAndValueRef, MetadataMap},
    server::NamedService,
    transport::{
        Channel, Endpoint, Server,
        server::{Router, TcpIncoming},
    },
};
use tower::service_fn;

/// Passes messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A server on a free port, ended with the value.
#[derive(Debug)]
pub(crate) struct TonicServer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl TonicServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Mood::default()).await
    }

    /// A server whose mood the test may change.
    pub(crate) async fn start_with(mood: Mood) -> Self {
        let echo = Echo { mood, cancelled: Arc::default() };
        Self::serve(Server::builder().add_service(echo)).await
    }

    /// A server that does not know the echo service.
    #[allow(dead_code, reason = "not every test program uses it")]
    pub(crate) async fn other() -> Self {
        Self::serve(Server::builder().add_service(Other)).await
    }

    async fn serve(server: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { address, serving }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TonicServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The service. Counts the calls that were given up.
#[derive(Clone, Debug)]
struct Echo {
    mood: Mood,
    cancelled: Arc<AtomicUsize>,
}

/// How a server answers, and how many calls have reached it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mood {
    /// One call of so many ends as UNAVAILABLE; 0 for none.
    pub(crate) fails: Arc<AtomicUsize>,
    /// Milliseconds that each call takes.
    pub(crate) millis: Arc<AtomicUsize>,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Mood {
    /// Counts a call; whether it is to fail.
    fn spoils(&self) -> bool {
        let (number, every) = (self.calls.fetch_add(1, Relaxed), self.fails.load(Relaxed));
        every > 0 && number % every == 0
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "pillion.test.Echo";
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let cancelled = Arc::clone(&self.cancelled);
        let spoilt = self.mood.spoils();
        let millis = self.mood.millis.load(Relaxed) as u64;
        Box::pin(async move {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            if spoilt {
                return Ok(Status::unavailable("in no mood").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(usize::MAX);
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Unary") => grpc.unary(service_fn(unary), request).await,
                Some("Download") => {
                    let service =
                        service_fn(move |request| download(request, Arc::clone(&cancelled)));
                    grpc.server_streaming(service, request).await
                }
                Some("Upload") => grpc.client_streaming(service_fn(upload), request).await,
                Some("Chat") => grpc.streaming(service_fn(chat), request).await,
                Some("Cancelled") => {
                    let count = cancelled.load(Relaxed).to_string();
                    let service = service_fn(move |_: Request<Bytes>| {
                        let count = Bytes::from(count.clone());
                        async move { Ok::<_, Status>(Response::new(count)) }
                    });
                    grpc.unary(service, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Another service, which is not called.
#[derive(Clone, Debug)]
struct Other;

impl NamedService for Other {
    const NAME: &'static str = "pillion.test.Other";
}

impl tower::Service<http::Request<Body>> for Other {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(Status::unimplemented("no such method").into_http()))
    }
}

async fn unary(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let metadata = request.metadata().clone();
    let text = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap());
    if let Some(millis) = text("sleep-ms") {
        tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
    }
    if let Some(code) = text("status") {
        let bytes = |name: &str| metadata.get_bin(name).unwrap().to_bytes().unwrap();
        let message = String::from_utf8(bytes("message-bin").to_vec()).unwrap();
        let code = Code::from(code.parse::<i32>().unwrap());
        return Err(Status::with_details(code, message, bytes("details-bin")));
    }
    let mut response = Response::new(request.into_inner());
    copy_echoed(&metadata, response.metadata_mut());
    Ok(response)
}

async fn download(
    request: Request<Bytes>,
    cancelled: Arc<AtomicUsize>,
) -> Result<Response<Messages>, Status> {
    let text = String::from_utf8(request.into_inner().to_vec()).unwrap();
    let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    let [count, size, code] = numbers[..] else { panic!("{text}") };
    let message = Bytes::from(vec![7; size]);
    let messages = stream::repeat(message).map(Ok).take(count);
    let error = (code > 0).then(|| Err(Status::new(Code::from(code as i32), "as asked")));
    let mut sending = CountsUnlessDone { cancelled, done: false };
    let done = stream::poll_fn(move |_| {
        sending.is_done();
        Poll::Ready(None)
    });
    Ok(Response::new(Box::pin(messages.chain(stream::iter(error)).chain(done))))
}

async fn upload(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let mut messages = request.into_inner();
    let (mut count, mut bytes) = (0, 0);
    while let Some(message) = messages.message().await? {
        (count, bytes) = (count + 1, bytes + message.len());
    }
    Ok(Response::new(Bytes::from(format!("{count} {bytes}"))))
}

async fn chat(request: Request<Streaming<Bytes>>) -> Result<Response<Messages>, Status> {
    let metadata = request.metadata().clone();
    let goodbye = stream::iter([Ok(Bytes::from_static(b"bye"))]);
    let mut response = Response::new(Box::pin(request.into_inner().chain(goodbye)) as Messages);
    copy_echoed(&metadata, response.metadata_mut());
    Ok(response)
}

struct CountsUnlessDone {
    cancelled: Arc<AtomicUsize>,
    done: bool,
}

impl CountsUnlessDone {
    fn is_done(&mut self) {
        self.done = true;
    }
}

impl Drop for CountsUnlessDone {
    fn drop(&mut self) {
        if !self.done {
            self.cancelled.fetch_add(1, Relaxed);
        }
    }
}

fn copy_echoed(from: &MetadataMap, to: &mut MetadataMap) {
    for entry in from.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("echo-") => {
                to.append(key.clone(), value.clone());
            }
            KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("echo-") => {
                to.append_bin(key.clone(), value.clone());
            }
            _ => {}
        }
    }
}

/// A client of the service called `authority`.
#[derive(Clone, Debug)]
pub(crate) struct TonicClient(Grpc<Channel>);

impl TonicClient {
    pub(crate) async fn connect(proxy: SocketAddr, authority: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{proxy}")).unwrap();
        let origin = format!("http://{authority}").parse().unwrap();
        let channel = endpoint.origin(origin).connect().await.unwrap();
        Self(Grpc::new(channel).max_decoding_message_size(usize::MAX))
    }

    pub(crate) async fn unary(
        &mut self,
        method: &'static str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.0.ready().await.unwrap();
        self.0.unary(request, path(method), Raw).await
    }

    pub(crate) async fn download(
        &mut self,
        request: &'static str,
    ) -> Result<Streaming<Bytes>, Status> {
        self.0.ready().await.unwrap();
        let request = Request::new(Bytes::from_static(request.as_bytes()));
        Ok(self.0.server_streaming(request, path("Download"), Raw).await?.into_inner())
    }

    pub(crate) async fn upload(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        self.0.ready().await.unwrap();
        let request = Request::new(messages);
        Ok(self.0.client_streaming(request, path("Upload"), Raw).await?.into_inner())
    }

    pub(crate) async fn chat(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.0.ready().await.unwrap();
        let mut request = Request::new(messages);
        request.metadata_mut().insert("echo-text", "first".parse().unwrap());
        self.0.streaming(request, path("Chat"), Raw).await
    }
}

fn path(method: &'static str) -> http::uri::PathAndQuery {
    format!("/pillion.test.Echo/{method}").parse().unwrap()
}
