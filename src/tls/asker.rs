//! The TLS of one who asks an admin address: HTTP/1.1, once.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName, sign::SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Failure, HTTP1, Why, versions};
use crate::{
    config::TlsVersion,
    pem::{self, Identity, PROVIDER, PemError},
};

/// Whom an asker believes, and who it is.
#[derive(Clone, Debug)]
pub struct Asker(Arc<ClientConfig>);

impl Asker {
    /// Believes the authorities in the file `ca`, without one those of the system, and presents the
    /// certificate of `identity`, which is that and its key.
    ///
    /// # Errors
    /// [`PemError`] names the file that cannot be used.
    pub fn new(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, PemError> {
        let authorities = ca.map_or_else(pem::system_authorities, pem::authorities)?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(versions(TlsVersion::V1_2))
            .expect("the provider has ciphers for both versions")
            .with_root_certificates(authorities.roots);
        let mut config = match identity {
            Some((cert, key)) => {
                let Identity { certified, .. } = pem::identity(cert, key)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with `host`, whose certificate has to be for that name or address.
    ///
    /// # Errors
    /// [`Failure`]. In TLS 1.3 what the peer has against the certificate of the asker shows only when
    /// something is read.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Failure::new(Why::WrongName, format!("no certificate can be for {host:?}"))
        })?;
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, tcp);
        connecting.await.map_err(|error| Failure::of(&error))
    }
}
