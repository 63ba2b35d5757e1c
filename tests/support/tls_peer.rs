//! Peers that speak TLS: a server in front of a plaintext one, and connections of a client.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// A certificate and its key.
pub(crate) type Pair = (std::path::PathBuf, std::path::PathBuf);

/// Speaks TLS, and hands what was in it to a plaintext server. Ends with the value.
#[derive(Debug)]
pub(crate) struct TlsFront {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    serving: JoinHandle<()>,
}

/// What has come of handshakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) full: usize,
    pub(crate) resumed: usize,
    /// Why others failed.
    pub(crate) failed: Vec<String>,
}

impl TlsFront {
    /// In front of `behind`, with this certificate; where there is a `client_ca`, clients must have one.
    pub(crate) async fn start(behind: SocketAddr, pair: &Pair, client_ca: Option<&Path>) -> Self {
        Self::start_with(behind, server_config(pair, client_ca, &[b"h2"])).await
    }

    /// In front of `behind`, as `config` says.
    pub(crate) async fn start_with(behind: SocketAddr, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                connections.spawn(serve(acceptor.clone(), tcp, behind, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, seen, serving }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come of handshakes until now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream, behind: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let mut tls = match acceptor.accept(tcp).await {
        Ok(tls) => tls,
        Err(error) => return seen.lock().unwrap().failed.push(error.to_string()),
    };
    match tls.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => seen.lock().unwrap().resumed += 1,
        _ => seen.lock().unwrap().full += 1,
    }
    let mut plain = TcpStream::connect(behind).await.unwrap();
    plain.set_nodelay(true).unwrap();
    let _ = copy_bidirectional(&mut tls, &mut plain).await;
}

/// A server with this certificate and these protocols.
pub(crate) fn server_config(
    pair: &Pair,
    client_ca: Option<&Path>,
    protocols: &[&[u8]],
) -> ServerConfig {
    server_config_of(rustls::ALL_VERSIONS, pair, client_ca, protocols)
}

/// The same, with these versions of TLS.
pub(crate) fn server_config_of(
    versions: &[&'static SupportedProtocolVersion],
    (cert, key): &Pair,
    client_ca: Option<&Path>,
    protocols: &[&[u8]],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match client_ca {
        Some(ca) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain(cert), private_key(key)).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A client that believes `ca`, with a certificate or without, and with these protocols.
pub(crate) fn client_config(ca: &Path, pair: Option<&Pair>, protocols: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca));
    let mut config = match pair {
        Some((cert, key)) => builder.with_client_auth_cert(chain(cert), private_key(key)).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// Connects to `address`, which must be `name`.
///
/// # Errors
/// The handshake failed.
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in chain(ca) {
        roots.add(certificate).unwrap();
    }
    roots
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn private_key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap()
}
