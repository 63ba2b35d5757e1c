//! What operators and Prometheus ask: HTTP/1.1, on the control thread, never on the path of a call.

mod access;
mod calls;
mod collector;
mod policy_collector;
mod registration_collector;
mod registrations;
mod reports;
mod routes;
mod why;

use std::{collections::VecDeque, future::Future, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
};

pub use collector::DirectoryCollector;
pub use policy_collector::PolicyCollector;
pub use registration_collector::RegistrationCollector;

use crate::{
    balance::Tables,
    config::AdminSettings,
    discovery::Directory,
    listener::{Accepted, Bound, Troubles},
    live::Live,
    metrics::Metrics,
    panics::{Caught, Task},
    policy::Policy,
    recent::Recent,
    register::Registrations,
    telemetry::LogLevel,
    tls::Server,
};

/// From accept to the end of a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections at a time, or fewer where descriptors are: the oldest goes for one more, so that an operator always
/// gets in.
const MOST: usize = 64;
/// Most headers of a request, and most bytes of its head.
const MOST_HEADERS: usize = 64;
const MOST_HEAD: usize = 16 << 10;

/// What the admin pages tell of, and what they can do.
pub struct Admin {
    /// Who may ask.
    pub access: AdminSettings,
    /// How they are spoken to on TCP; none in plaintext.
    pub tls: Option<Arc<Server>>,
    /// Connections that there may be at a time; never more than 64.
    pub most_connections: usize,
    /// The settings in force.
    pub live: Arc<Live>,
    /// What is laid over the file.
    pub policy: Arc<Policy>,
    /// What is known of services and sources.
    pub directory: Directory,
    /// What is put into registries.
    pub registrations: Registrations,
    /// What is counted.
    pub metrics: Metrics,
    /// What the workers share of balancing by key.
    pub tables: Tables,
    /// What failed or was slow of late.
    pub recent: Recent,
    /// Changes the log.
    pub log: LogLevel,
    /// Reasons why the process is not ready, beyond what the sources say: empty when there are none.
    pub unready: Box<dyn Fn() -> Vec<String>>,
    /// Starts a drain.
    pub drain: Box<dyn Fn()>,
}

/// Serves the admin pages for as long as it is polled.
pub async fn serve(bound: &Bound, admin: &Rc<Admin>) {
    let mut troubles = Troubles::new(&admin.metrics, bound);
    let (mut serving, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        match bound.accept().await {
            Ok(accepted) => {
                while serving.try_join_next().is_some() {}
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MOST.min(admin.most_connections) {
                    open.pop_front().inspect(AbortHandle::abort);
                }
                let connection = Caught::new(Task::Admin, connection(accepted, Rc::clone(admin)));
                open.push_back(serving.spawn_local(async {
                    let _ = connection.await;
                }));
            }
            Err(error) => {
                troubles.note(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(accepted: Accepted, admin: Rc<Admin>) {
    let served = match accepted {
        Accepted::Tcp(stream) => match TcpStream::from_std(stream) {
            Ok(stream) => {
                // Of one that is gone already nothing will be answered.
                let Ok(local) = stream.local_addr() else { return };
                let local = Some(local.ip().to_canonical());
                match admin.tls.clone() {
                    None => http(TokioIo::new(stream), local, admin).await,
                    Some(tls) => match tls.accept(stream, HEADER_TIMEOUT).await {
                        Ok(secured) => http(TokioIo::new(secured.stream), local, admin).await,
                        Err(failure) => {
                            let reason = failure.why.as_str();
                            return tracing::info!(reason, "admin: TLS: {}", failure.text);
                        }
                    },
                }
            }
            Err(_) => return,
        },
        Accepted::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
            Ok(stream) => http(TokioIo::new(stream), None, admin).await,
            Err(_) => return,
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin: connection ended");
    }
}

fn http<T>(
    io: T,
    local: Option<IpAddr>,
    admin: Rc<Admin>,
) -> impl Future<Output = hyper::Result<()>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD)
        .serve_connection(
            io,
            service_fn(move |request| {
                let admin = Rc::clone(&admin);
                async move {
                    let mut answer = routes::answer(request, local, &admin).await;
                    access::harden(answer.headers_mut());
                    Ok::<_, std::convert::Infallible>(answer)
                }
            }),
        )
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
