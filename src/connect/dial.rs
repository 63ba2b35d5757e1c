//! One new connection: TCP, the HTTP/2 preface and, where asked for, the peer's SETTINGS.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{net::TcpStream, time::Instant};

use super::{
    gather::{Gather, Probed, Reins},
    names,
    wires::Portion,
};
use crate::{
    config::{Policy, Ready},
    descriptors,
    metrics::{AttemptOutcome, OpenConnection, ServiceMetrics},
    model::{Endpoint, ServiceName},
    tls::{Clients, Failure, Stream, Terms},
};

/// Bytes that an endpoint may send on one stream before the application has taken any; less than on a connection of
/// a call's own, for a shared one cannot be left unread for the sake of one application.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes that an endpoint may send on one connection. Large, so that one application that does not
/// read cannot stall the others that share a pooled connection; h2 also takes its allowance for
/// small DATA frames from it.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes of one call kept for an endpoint that does not read.
const SEND_BUFFER: usize = 256 << 10;
/// Largest head or trailers of an answer, after HPACK. Far above what anyone should send: a larger
/// one ends its call, but one of more than that and a quarter ends the connection, and so others.
const MAX_HEADER_LIST: u32 = 1 << 20;

/// The connection proper: whoever holds it must poll it.
pub(super) type Wire = client::Connection<Gather<Stream>, Bytes>;

/// A connection that counts as connected.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) send: SendRequest<Bytes>,
    pub(super) wire: Box<Wire>,
    pub(super) open: OpenConnection,
}

/// How the connection will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With its call: closed by RST, which leaves no TIME_WAIT. A port kept for a minute after each
    /// call would bound calls to one endpoint at 28 000 ports / 60 s, some 470 a second.
    WithCall,
    /// In its own time, by GOAWAY and FIN.
    Graceful,
}

/// Why an endpoint could not be connected. Nothing of the call was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// Not connected, or not ready, within `connect_timeout`.
    #[error("{address}: not connected within {}", humantime::format_duration(*.limit))]
    Timeout {
        /// Which endpoint.
        address: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The system or the peer refused.
    #[error("{address}: {source}")]
    Io {
        /// Which endpoint.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// This process has no descriptor for a connection: nothing that the endpoint is to blame for.
    #[error("{address}: this proxy has no open file left for a connection; see ulimit -n")]
    NoDescriptor {
        /// Which endpoint.
        address: String,
    },
    /// It closed the connection before it sent its SETTINGS.
    #[error("{address}: closed the connection before it sent HTTP/2 SETTINGS")]
    Closed {
        /// Which endpoint.
        address: String,
    },
    /// It said GOAWAY: it is about to stop, or has had enough of this connection.
    #[error("{address}: said GOAWAY before a call was sent")]
    GoAway {
        /// Which endpoint.
        address: String,
    },
    /// What it sent is not HTTP/2.
    #[error("{address}: does not speak HTTP/2 ({reason})")]
    Protocol {
        /// Which endpoint.
        address: String,
        /// What h2 found.
        reason: String,
    },
    /// TLS is to be spoken, and was not agreed on.
    #[error("{address}: TLS: {failure}")]
    Tls {
        /// Which endpoint.
        address: String,
        /// Why not.
        failure: Failure,
    },
}

impl DialError {
    /// It was not found out, for a mistake of ours.
    pub(super) fn panicked(endpoint: &Endpoint) -> Self {
        let source = Arc::new(io::Error::other("a mistake in this proxy, see its log"));
        Self::Io { address: endpoint.record.address.to_string(), source }
    }

    /// How the attempt counts.
    pub const fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Timeout { .. } => AttemptOutcome::ConnectTimeout,
            Self::GoAway { .. } => AttemptOutcome::Refused,
            Self::NoDescriptor { .. } => AttemptOutcome::Cancelled,
            _ => AttemptOutcome::ConnectFailed,
        }
    }

    /// Whether it tells nothing of the endpoint, and no other one could be connected either.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::NoDescriptor { .. })
    }

    /// Whether something answered, but not in HTTP/2.
    pub const fn is_protocol(&self) -> bool {
        matches!(self, Self::Protocol { .. })
    }
}

/// How an endpoint is to be connected.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// When it counts as connected.
    pub(super) ready: Ready,
    /// Time for all of it.
    pub(super) limit: Duration,
    /// Time in which its host must give a sign of life once it is.
    pub(super) host_timeout: Duration,
    /// TLS; none for plaintext.
    pub(super) tls: Option<Secure>,
}

/// TLS that is to be spoken.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    pub(super) terms: Arc<Terms>,
    /// Whose endpoints are connected.
    pub(super) service: ServiceName,
}

impl Manner {
    /// The way of `policy`, in plaintext.
    pub(super) const fn plain(policy: &Policy) -> Self {
        Self {
            ready: policy.ready,
            limit: policy.connect_timeout,
            host_timeout: policy.host_timeout,
            tls: None,
        }
    }

    /// The way of `policy` for an endpoint of `service`. Reads files where nobody has before.
    pub(super) async fn of(
        policy: &Policy,
        endpoint: &Endpoint,
        service: &ServiceName,
        clients: &Clients,
    ) -> Result<Self, DialError> {
        let plain = Self::plain(policy);
        if !policy.tls.is_spoken(endpoint.record.tls) {
            return Ok(plain);
        }
        let terms = clients.terms(&policy.tls).await.map_err(|failure| DialError::Tls {
            address: endpoint.record.address.to_string(),
            failure,
        })?;
        Ok(Self { tls: Some(Secure { terms, service: service.clone() }), ..plain })
    }

    /// What connections must have in common to be shared.
    pub(super) fn terms(&self) -> Option<&Arc<Terms>> {
        self.tls.as_ref().map(|secure| &secure.terms)
    }

    /// Speaks TLS on a connection, where it is to be spoken. Where TCP is all that is asked for, it is waited for:
    /// else a call would count as sent to an endpoint that refuses it.
    async fn secure(&self, tcp: TcpStream, endpoint: &Endpoint) -> Result<Stream, DialError> {
        match &self.tls {
            None if self.ready == Ready::Tcp => {
                let tcp = established(tcp).await.map_err(|error| refused(endpoint, error))?;
                Ok(Stream::Plain(tcp))
            }
            None => Ok(Stream::Plain(tcp)),
            // Boxed: calls in plaintext need not carry it about.
            Some(secure) => Box::pin(secure.shake_hands(tcp, endpoint)).await,
        }
    }
}

/// Connects to `endpoint`, up to where HTTP/2 begins, and then has HTTP/2 spoken; all within the limit of `manner`.
pub(super) async fn connected<T>(
    endpoint: &Endpoint,
    manner: &Manner,
    ending: Ending,
    metrics: &ServiceMetrics,
    speak: impl AsyncFnOnce(Stream) -> Result<T, DialError>,
) -> Result<(T, OpenConnection), DialError> {
    let address = || endpoint.record.address.to_string();
    let limit = manner.limit;
    let began = Instant::now();
    let connecting = async {
        let tcp = connect(endpoint, ending).await.map_err(|error| refused(endpoint, error))?;
        let open = metrics.connection_opened();
        let stream = manner.secure(tcp, endpoint).await?;
        let objection = stream.failure();
        let spoken = speak(stream).await.map_err(|error| {
            // What TLS found wrong after all, else what HTTP/2 did.
            match objection.as_ref().and_then(|objection| objection.get()).zip(manner.tls.as_ref())
            {
                Some((failure, secure)) => {
                    secure.terms.count(failure);
                    DialError::Tls { address: address(), failure: failure.clone() }
                }
                None => error,
            }
        })?;
        Ok((spoken, open))
    };
    let connected = tokio::time::timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| Err(DialError::Timeout { address: address(), limit }))?;
    metrics.connected(began.elapsed());
    Ok(connected)
}

/// Connects to `endpoint`, for calls that will share the connection, which is read by the `portion`.
pub(super) async fn dial(
    endpoint: &Endpoint,
    manner: &Manner,
    metrics: &ServiceMetrics,
    portion: Portion,
) -> Result<Dialed, DialError> {
    let address = || endpoint.record.address.to_string();
    let ready = manner.ready;
    let speak = async |stream: Stream| {
        // Held until the call follows: the preface, then the acknowledgement of SETTINGS.
        let reins = Reins::default();
        reins.hold(true);
        reins.probe(manner.host_timeout);
        let gather = Gather::new(stream, reins.clone(), portion);
        let (mut send, mut wire) =
            handshake(gather, ready).await.map_err(|error| failed(&error, address()))?;
        if ready == Ready::Settings {
            settings(&mut wire).await.map_err(|error| match error {
                Some(error) => failed(&error, address()),
                None if said_goaway(&mut send) => DialError::GoAway { address: address() },
                None => DialError::Closed { address: address() },
            })?;
        }
        reins.hold(false);
        Ok((send, wire))
    };
    let ((send, wire), open) =
        connected(endpoint, manner, Ending::Graceful, metrics, speak).await?;
    Ok(Dialed { send, wire, open })
}

impl Secure {
    async fn shake_hands(&self, tcp: TcpStream, endpoint: &Endpoint) -> Result<Stream, DialError> {
        // What TCP has against it is not for TLS to tell.
        let tcp = established(tcp).await.map_err(|error| refused(endpoint, error))?;
        let address = &endpoint.record.address;
        let connected = self.terms.connect(tcp, address, self.service.as_str()).await;
        connected.map_err(|failure| DialError::Tls { address: address.to_string(), failure })
    }
}

/// Has the system watch the host of a connection.
pub(super) fn watched(stream: &Stream, silence: Duration) {
    if let Err(error) = stream.probe(silence) {
        tracing::debug!(%error, "the system does not watch an endpoint");
    }
}

/// Connects, up to where HTTP/2 begins. Broken off when it is dropped.
pub(super) async fn secured(endpoint: &Endpoint, manner: &Manner) -> Result<Stream, DialError> {
    let tcp =
        connect(endpoint, Ending::WithCall).await.map_err(|error| refused(endpoint, error))?;
    manner.secure(tcp, endpoint).await
}

fn refused(endpoint: &Endpoint, error: io::Error) -> DialError {
    let address = endpoint.record.address.to_string();
    match descriptors::ran_out(&error) {
        true => DialError::NoDescriptor { address },
        false => DialError::Io { address, source: Arc::new(error) },
    }
}

/// Connects by TCP alone, waits until that is done, and breaks the connection off.
pub(super) async fn reach(endpoint: &Endpoint, limit: Duration) -> Result<(), DialError> {
    let address = || endpoint.record.address.to_string();
    let connecting = async { established(connect(endpoint, Ending::WithCall).await?).await };
    match tokio::time::timeout(limit, connecting).await {
        Ok(reached) => reached.map(drop).map_err(|error| refused(endpoint, error)),
        Err(_) => Err(DialError::Timeout { address: address(), limit }),
    }
}

/// Waits until a connection that was begun is there.
async fn established(stream: TcpStream) -> io::Result<TcpStream> {
    stream.writable().await?;
    match SockRef::from(&stream).take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

async fn connect(endpoint: &Endpoint, ending: Ending) -> io::Result<TcpStream> {
    match endpoint.record.address.socket() {
        // Not waited for: the first write waits, and tells what went wrong.
        Some(address) => connect_to(address, ending),
        None => connect_by_name(endpoint, ending).await,
    }
}

/// Tries each address of a host name in turn; the time limit is the caller's.
async fn connect_by_name(endpoint: &Endpoint, ending: Ending) -> io::Result<TcpStream> {
    let address = &endpoint.record.address;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for ip in names::addresses(address.host()).await? {
        let to = SocketAddr::new(ip, address.port());
        if let Err(refused) = endpoint.networks.check(to) {
            last = io::Error::new(io::ErrorKind::PermissionDenied, refused);
            continue;
        }
        let attempt = async { established(connect_to(to, ending)?).await };
        match attempt.await {
            Ok(stream) => return Ok(stream),
            Err(error) if descriptors::ran_out(&error) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Begins to connect.
fn connect_to(address: SocketAddr, ending: Ending) -> io::Result<TcpStream> {
    /// Linux: "operation now in progress".
    const EINPROGRESS: i32 = 115;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if !descriptors::has_one_for_a_call(socket.as_raw_fd()) {
        return Err(descriptors::none_left());
    }
    socket.set_tcp_nodelay(true)?;
    if ending == Ending::WithCall {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    }
}

impl Probed for Stream {
    fn probe(&self, silence: Duration) -> io::Result<()> {
        /// The system counts in these.
        const SECOND: Duration = Duration::from_secs(1);
        let socket = SockRef::from(self.tcp());
        let again = (silence / 4).max(SECOND);
        let probes = TcpKeepalive::new().with_time(silence.max(SECOND)).with_interval(again);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(silence))
    }
}

async fn handshake(
    io: Gather<Stream>,
    ready: Ready,
) -> Result<(SendRequest<Bytes>, Box<Wire>), h2::Error> {
    // No stream may be opened before SETTINGS came: h2 then tells their arrival by its limit.
    let streams = if ready == Ready::Settings { 0 } else { usize::MAX };
    let (send, wire) = client::Builder::new()
        .initial_max_send_streams(streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .enable_push(false)
        .handshake(io)
        .await?;
    Ok((send, Box::new(wire)))
}

/// Waits for the peer's first SETTINGS; an error without a cause is a clean close.
async fn settings(wire: &mut Wire) -> Result<(), Option<h2::Error>> {
    poll_fn(|cx| match Pin::new(&mut *wire).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(None)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(Some(error))),
        Poll::Pending if wire.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Whether a connection that closed in good order was closed by GOAWAY.
fn said_goaway(send: &mut SendRequest<Bytes>) -> bool {
    let ready = send.poll_ready(&mut Context::from_waker(Waker::noop()));
    matches!(ready, Poll::Ready(Err(error)) if error.is_go_away())
}

fn failed(error: &h2::Error, address: String) -> DialError {
    match error.get_io() {
        Some(source) => {
            let source = Arc::new(io::Error::new(source.kind(), source.to_string()));
            DialError::Io { address, source }
        }
        None => DialError::Protocol { address, reason: error.to_string() },
    }
}
