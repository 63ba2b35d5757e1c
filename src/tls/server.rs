//! The TLS of a listener, and of the admin address.

use std::{
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::ring::Ticketer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    Failure, H2, HTTP1, Why,
    keeper::{Dated, Kept, present},
    turns::{Place, by_turns},
    verify::ApplicationVerifier,
    versions,
};
use crate::{
    config::ListenerTls,
    metrics::{Handshakes, TlsMetrics},
    pem::{self, Leaf, PROVIDER, PemError},
};

/// The TLS of a listener.
#[derive(Debug)]
pub struct Server {
    of: Of,
    settings: ListenerTls,
    current: ArcSwap<Current>,
    metrics: Handshakes,
}

/// Whom a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Applications, which must speak HTTP/2.
    Applications,
    /// Operators, who speak HTTP/1.1, whether they say so by ALPN or not.
    Operators,
}

/// What was read.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Who signs for applications; none where none has to have a certificate.
    authorities: Option<Arc<RootCertStore>>,
    dated: Vec<Dated>,
}

/// A connection on which hands were shaken.
#[derive(Debug)]
pub struct Secured {
    /// What is said from now on: HTTP/2, at the admin address HTTP/1.1.
    pub stream: TlsStream<TcpStream>,
    /// Whose certificate it presented; none where it was not asked for one.
    pub peer: Option<Rc<str>>,
}

impl Server {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// [`PemError`] names the file that cannot be used.
    pub(super) fn new(
        of: Of,
        settings: &ListenerTls,
        metrics: &TlsMetrics,
    ) -> Result<Self, PemError> {
        let current = ArcSwap::from_pointee(read(of, settings, None)?);
        let metrics = match of {
            Of::Applications => metrics.downstream.clone(),
            Of::Operators => metrics.admin.clone(),
        };
        Ok(Self { of, settings: settings.clone(), current, metrics })
    }

    /// Shakes hands with an application within `limit`, and counts what came of it.
    ///
    /// # Errors
    /// [`Failure`], of which the application has been told by then, where TLS has words for it.
    pub async fn accept(&self, tcp: TcpStream, limit: Duration) -> Result<Secured, Failure> {
        let accepted = match timeout(limit, self.shake_hands(tcp)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(Failure::late(limit)),
        };
        match &accepted {
            Ok(secured) => {
                let kind = secured.stream.get_ref().1.handshake_kind();
                self.metrics.done(kind == Some(HandshakeKind::Resumed));
            }
            Err(failure) => self.metrics.failed(failure.why.as_str()),
        }
        accepted
    }

    async fn shake_hands(&self, tcp: TcpStream) -> Result<Secured, Failure> {
        let start = LazyConfigAcceptor::new(Default::default(), tcp)
            .await
            .map_err(|error| Failure::of(&error))?;
        if self.of == Of::Applications && start.client_hello().alpn().is_none() {
            let mut tcp = start.io;
            // It will learn of it, or has gone.
            let _ = tcp.write_all(NO_APPLICATION_PROTOCOL).await;
            let _ = tcp.shutdown().await;
            return Err(Failure::new(
                Why::NoAlpn,
                "it offers no protocol by ALPN, and HTTP/2 (\"h2\") is needed",
            ));
        }
        let Some(_place) = Place::take() else {
            let text = "too many others are at their handshake: more would only wait";
            return Err(Failure::new(Why::Busy, text));
        };
        let config = Arc::clone(&self.current.load().config);
        let accepting = by_turns(start.into_stream(config));
        let stream = accepting.await.map_err(|error| Failure::of(&error))?;
        let peer =
            stream.get_ref().1.peer_certificates().and_then(|chain| Leaf::of(chain.first()?));
        // One that goes on from an earlier session shows no certificate, which may have expired since.
        match peer {
            Some(leaf) if leaf.left(SystemTime::now()).is_none() => Err(Failure::new(
                Why::Expired,
                "the certificate of its earlier session has expired",
            )),
            peer => Ok(Secured { stream, peer: peer.map(|leaf| leaf.told().into()) }),
        }
    }
}

impl Kept for Server {
    fn files(&self) -> Vec<PathBuf> {
        let ListenerTls { cert, key, client_ca, .. } = &self.settings;
        present([Some(&**cert), Some(key), client_ca.as_deref()])
    }

    fn read_again(&self) -> Result<(), PemError> {
        let current = read(self.of, &self.settings, Some(&self.current.load()))?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    fn dated(&self) -> Vec<Dated> {
        self.current.load().dated.clone()
    }
}

/// A fatal alert (RFC 8446 section 6) in a record of its own: what rustls would say of a wrong protocol,
/// where it lets none at all pass.
const NO_APPLICATION_PROTOCOL: &[u8] = &[21, 3, 3, 0, 2, 2, 120];

/// The sessions that `before` has given tickets for go on, unless other authorities are believed now:
/// who goes on from one shows no certificate again.
fn read(of: Of, settings: &ListenerTls, before: Option<&Current>) -> Result<Current, PemError> {
    let identity = pem::identity(&settings.cert, &settings.key)?;
    let (role, protocol) = match of {
        Of::Applications => ("listener", H2),
        Of::Operators => ("admin", HTTP1),
    };
    let own = Dated { file: settings.cert.clone(), role, leaf: identity.leaf };
    let mut dated = vec![own];
    let authorities = settings.client_ca.as_ref().map(|ca| pem::authorities(ca)).transpose()?;
    if let Some((file, first)) = settings.client_ca.clone().zip(authorities.as_ref()) {
        let leaf = first.first_to_expire.clone();
        dated.extend(leaf.map(|leaf| Dated { file, role: "client_ca", leaf }));
    }
    let authorities = authorities.map(|authorities| authorities.roots);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(versions(settings.min_version))
        .expect("the provider has ciphers for both versions")
        .with_client_cert_verifier(verifier(settings, authorities.as_ref()))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)));
    config.alpn_protocols = vec![protocol.to_vec()];
    let roots =
        |roots: &Option<Arc<RootCertStore>>| roots.as_ref().map(|store| store.roots.clone());
    match before.filter(|before| roots(&before.authorities) == roots(&authorities)) {
        Some(before) => config.ticketer = Arc::clone(&before.config.ticketer),
        // Without randomness there are no tickets, and no handshakes either.
        None => config.ticketer = Ticketer::new().unwrap_or(config.ticketer),
    }
    // Whoever makes many connections gets one with each.
    config.send_tls13_tickets = 1;
    Ok(Current { config: Arc::new(config), authorities, dated })
}

fn verifier(
    settings: &ListenerTls,
    authorities: Option<&Arc<RootCertStore>>,
) -> Arc<dyn ClientCertVerifier> {
    let Some(roots) = authorities else { return Arc::new(NoClientAuth) };
    let chain =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER))
            .build()
            .expect("there is an authority, and no revocation list that could be bad");
    match settings.allow.is_empty() {
        true => chain,
        false => Arc::new(ApplicationVerifier { chain, allow: settings.allow.clone() }),
    }
}
