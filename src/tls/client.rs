//! The TLS towards endpoints.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, HandshakeKind, client::danger::ServerCertVerifier, pki_types::ServerName,
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    Failure, H2, Stream, Why,
    keeper::{Dated, Keeping, Kept, present},
    sessions::Sessions,
    stream::Encrypted,
    turns::by_turns,
    verify::EndpointVerifier,
    versions,
};
use crate::{
    config::EndpointTls,
    metrics::TlsMetrics,
    model::Address,
    pem::{self, Identity, PROVIDER, PemError},
};

/// All clients of the process; cloning shares them. Policies that say the same of TLS share one.
#[derive(Clone, Debug)]
pub struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// By the address of the settings, which nobody else has while there is a `Weak` of them.
    known: ArcSwap<HashMap<usize, Known, foldhash::fast::RandomState>>,
    /// Held by who adds one.
    adding: Mutex<()>,
    keeping: Keeping,
    metrics: TlsMetrics,
}

#[derive(Clone, Debug)]
struct Known {
    settings: Weak<EndpointTls>,
    client: Arc<Client>,
}

/// The TLS of everybody whose policy says the same of it.
#[derive(Debug)]
struct Client {
    settings: EndpointTls,
    current: ArcSwap<Terms>,
    metrics: TlsMetrics,
}

/// What connections are made by until a file changes. Those that are shared are told apart by it: who
/// calls on one may rely on what it was made by.
#[derive(Debug)]
pub struct Terms {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    by_names: bool,
    sessions: Sessions,
    outdated: AtomicBool,
    dated: Vec<Dated>,
    metrics: TlsMetrics,
}

impl Clients {
    /// None yet; they count in `metrics`.
    pub(super) fn new(metrics: TlsMetrics, keeping: Keeping) -> Self {
        let (known, adding) = (ArcSwap::default(), Mutex::default());
        Self(Arc::new(Shared { known, adding, keeping, metrics }))
    }

    /// The terms of `settings` now, if anybody has asked for them before. Takes no lock.
    pub fn now(&self, settings: &Arc<EndpointTls>) -> Option<Arc<Terms>> {
        let known = self.0.known.load();
        known.get(&key(settings)).map(|known| known.client.current.load_full())
    }

    /// The terms of `settings`. Who is first to ask waits until the files are read.
    ///
    /// # Errors
    /// [`Failure`] names the file that cannot be used.
    pub async fn terms(&self, settings: &Arc<EndpointTls>) -> Result<Arc<Terms>, Failure> {
        if let Some(terms) = self.now(settings) {
            return Ok(terms);
        }
        let (clients, settings) = (self.clone(), Arc::clone(settings));
        let made = tokio::task::spawn_blocking(move || clients.make(&settings)).await;
        match made {
            Ok(made) => made
                .map(|client| client.current.load_full())
                .map_err(|error| Failure::new(Why::Files, error.to_string())),
            Err(error) => Err(Failure::new(Why::Other, error.to_string())),
        }
    }

    fn make(&self, settings: &Arc<EndpointTls>) -> Result<Arc<Client>, PemError> {
        let _adding = self.0.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.0.known.load_full();
        if let Some(known) = known.get(&key(settings)) {
            return Ok(Arc::clone(&known.client));
        }
        let alike = known.values().find(|known| known.client.settings == **settings);
        let client = match alike {
            Some(known) => Arc::clone(&known.client),
            None => {
                let client = Arc::new(Client::new(settings, &self.0.metrics)?);
                let kept: Arc<dyn Kept> = Arc::<Client>::clone(&client);
                self.0.keeping.keep(Arc::downgrade(&kept));
                client
            }
        };
        let used = known.iter().filter(|(_, known)| known.settings.strong_count() > 0);
        let mut now: HashMap<_, _, _> = used.map(|(key, known)| (*key, known.clone())).collect();
        let settings_now = Arc::downgrade(settings);
        now.insert(key(settings), Known { settings: settings_now, client: Arc::clone(&client) });
        self.0.known.store(Arc::new(now));
        Ok(client)
    }
}

fn key(settings: &Arc<EndpointTls>) -> usize {
    Arc::as_ptr(settings) as usize
}

impl Client {
    fn new(settings: &EndpointTls, metrics: &TlsMetrics) -> Result<Self, PemError> {
        let terms = Terms::read(settings, metrics)?;
        let current = ArcSwap::from_pointee(terms);
        Ok(Self { settings: settings.clone(), current, metrics: metrics.clone() })
    }
}

impl Kept for Client {
    fn files(&self) -> Vec<PathBuf> {
        let EndpointTls { ca, identity, .. } = &self.settings;
        let (cert, key) = identity.as_ref().map(|(cert, key)| (&**cert, &**key)).unzip();
        present([ca.as_deref(), cert, key])
    }

    fn read_again(&self) -> Result<(), PemError> {
        let terms = Terms::read(&self.settings, &self.metrics)?;
        self.current.swap(Arc::new(terms)).outdated.store(true, Relaxed);
        Ok(())
    }

    fn dated(&self) -> Vec<Dated> {
        self.current.load().dated.clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.current.load().outdated.store(true, Relaxed);
    }
}

impl Terms {
    fn read(settings: &EndpointTls, metrics: &TlsMetrics) -> Result<Self, PemError> {
        let authorities = match &settings.ca {
            Some(ca) => pem::authorities(ca)?,
            None => pem::system_authorities()?,
        };
        let first = authorities.first_to_expire.zip(settings.ca.clone());
        let first = first.map(|(leaf, file)| Dated { file, role: "ca", leaf });
        let mut dated: Vec<_> = first.into_iter().collect();
        let names = settings.verify.clone();
        let by_names = !names.is_empty();
        let verifier: Arc<dyn ServerCertVerifier> =
            Arc::new(EndpointVerifier { roots: authorities.roots, names });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(versions(settings.min_version))
            .expect("the provider has ciphers for both versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &settings.identity {
            Some((cert, key)) => {
                let Identity { certified, leaf } = pem::identity(cert, key)?;
                dated.push(Dated { file: cert.clone(), role: "endpoint", leaf });
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            server_name: settings.server_name.clone(),
            by_names,
            sessions: Sessions::default(),
            outdated: AtomicBool::new(false),
            dated,
            metrics: metrics.clone(),
        })
    }

    /// Shakes hands with the endpoint at `address` of `service`, on a connection to it.
    ///
    /// # Errors
    /// [`Failure`], of which the endpoint has been told by then, where TLS has words for it.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        address: &Address,
        service: &str,
    ) -> Result<Stream, Failure> {
        let connected = self.shake_hands(tcp, address, service).await;
        match &connected {
            Ok(Stream::Tls(tls)) => {
                let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
                self.metrics.upstream.done(resumed);
            }
            Ok(Stream::Plain(_)) => {}
            Err(failure) => self.count(failure),
        }
        connected
    }

    /// Whether new connections are made by others: what they were read from has changed, or nobody asks
    /// for them any more.
    pub fn are_outdated(&self) -> bool {
        self.outdated.load(Relaxed)
    }

    /// Counts a handshake that failed.
    pub fn count(&self, failure: &Failure) {
        self.metrics.upstream.failed(failure.why.as_str());
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        address: &Address,
        service: &str,
    ) -> Result<Stream, Failure> {
        let name = self.name(address, service)?;
        let config = self.sessions.of(&self.config, address, &name, Instant::now());
        let connecting = TlsConnector::from(config).connect(name, tcp);
        let stream = by_turns(connecting).await.map_err(|error| Failure::of(&error))?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            let text = "it does not agree on HTTP/2 by ALPN (\"h2\"): is that the port of gRPC?";
            return Err(Failure::new(Why::NoAlpn, text));
        }
        Ok(Stream::Tls(Box::new(Encrypted::new(stream))))
    }

    /// Whom to ask for.
    fn name(&self, address: &Address, service: &str) -> Result<ServerName<'static>, Failure> {
        if let Some(name) = &self.server_name {
            return Ok(name.clone());
        }
        let host = address.host();
        let ip = address.socket().map(|socket| ServerName::from(socket.ip()));
        let name = match &ip {
            None => ServerName::try_from(host.to_owned()).ok(),
            Some(_) => ServerName::try_from(service.to_owned()).ok(),
        };
        // Where names are given, what is asked for decides nothing.
        name.or_else(|| ip.filter(|_| self.by_names)).ok_or_else(|| {
            let text = format!(
                "no certificate can be for {:?}: say `server_name` or `verify` in [service.\"{service}\".tls]",
                if address.socket().is_some() { service } else { host }
            );
            Failure::new(Why::Files, text)
        })
    }
}
