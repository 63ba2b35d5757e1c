//! TLS at both ends of the program, with certificates that are replaced all the time: a listener for
//! applications, and a service whose endpoints let in nobody without a certificate.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use h2::client::Builder;
use rustls::ClientConfig;
use tokio::{sync::watch, time::timeout};

use crate::backend::Backend;
use crate::client::Client;
use crate::tls::Authority;
use crate::tls_peer::{Pair, TlsFront, client_config, connect};

/// The service whose endpoints speak TLS.
pub(crate) const SERVICE: &str = "secret";
/// Whom its endpoints are to be, and who the proxy says it is.
const ENDPOINT: &str = "URI:spiffe://soak/endpoint";
const PROXY: &str = "DNS:localhost,URI:spiffe://soak/proxy";
/// Between two certificates.
const PAUSE: Duration = Duration::from_secs(4);

/// An authority, what it has signed, and the endpoints.
#[derive(Debug)]
pub(crate) struct Secret {
    authority: Authority,
    /// Read by the program, as server and as client.
    in_use: Pair,
    fronts: Vec<(Backend, TlsFront)>,
    pub(crate) rotations: AtomicUsize,
}

impl Secret {
    pub(crate) async fn start(folder: &Path) -> Self {
        let authority = Authority::new(folder, "ca");
        let pair = authority.sign_for("endpoint", ENDPOINT);
        let mut fronts = Vec::new();
        for _ in 0..2 {
            let backend = Backend::echo().await;
            let front = TlsFront::start(backend.address(), &pair, Some(&authority.cert())).await;
            fronts.push((backend, front));
        }
        let in_use = (folder.join("in-use.pem"), folder.join("in-use.key"));
        let secret = Self { authority, in_use, fronts, rotations: AtomicUsize::new(0) };
        secret.install();
        secret
    }

    /// Where the endpoints listen.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.fronts.iter().map(|(_, front)| front.address())
    }

    /// A listener without TLS and one with it, and how the service is called.
    pub(crate) fn config(&self) -> String {
        let ((cert, key), ca) = (&self.in_use, self.authority.cert());
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncert = {cert:?}\nkey = {key:?}\n\
             client_ca = {ca:?}\nallow = [\"spiffe://soak/*\"]\n\
             [service.{SERVICE}]\nconnection = \"fresh\"\n[service.{SERVICE}.tls]\nmode = \"on\"\n\
             ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\nverify = [\"spiffe://soak/endpoint\"]\n"
        )
    }

    /// What an application connects with.
    pub(crate) fn application(&self) -> ClientConfig {
        let pair = self.authority.sign_for("application", "URI:spiffe://soak/application");
        client_config(&self.authority.cert(), Some(&pair), &[b"h2"])
    }

    /// Replaces the certificate of the program until told to stop.
    pub(crate) async fn rotate(&self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow_and_update() {
            self.install();
            self.rotations.fetch_add(1, Relaxed);
            let _ = timeout(PAUSE, stopped.changed()).await;
        }
    }

    /// Each file is renamed over what was there, the certificate first: for a moment they do not match.
    fn install(&self) {
        let (cert, key) = self.authority.sign_for("proxy", PROXY);
        for (from, to) in [(cert, &self.in_use.0), (key, &self.in_use.1)] {
            let new: PathBuf = to.with_extension("new");
            fs::copy(from, &new).unwrap();
            fs::rename(new, to).unwrap();
        }
    }

    /// What endpoints say of handshakes in which one side refused the other. Those that only broke off were
    /// of callers who had gone away.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let failed = self.fronts.iter().flat_map(|(_, front)| front.seen().failed);
        failed.filter(|why| why.contains("alert") || why.contains("certificate")).collect()
    }
}

/// An application on a connection with TLS.
pub(crate) async fn application(address: SocketAddr, config: ClientConfig) -> Client {
    let tls = connect(address, "localhost", config).await.unwrap();
    let mut builder = Builder::new();
    builder.initial_window_size(8 << 20).initial_connection_window_size(64 << 20);
    Client::over(tls, &builder).await
}
