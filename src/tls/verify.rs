//! Whether the peer is who it should be: its chain by rustls, then its names.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{
    model::CertificateName,
    pem::{Leaf, PROVIDER},
};

/// The certificate of a peer is for others.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is for {has}, not for {wanted}")]
pub(super) struct NoneOfNames {
    has: String,
    wanted: String,
}

impl NoneOfNames {
    fn error(certificate: &CertificateDer<'_>, wanted: String) -> Error {
        let has = Leaf::of(certificate).map_or_else(|| "nobody".to_owned(), |leaf| leaf.told());
        let error = OtherError(Arc::new(Self { has, wanted }));
        Error::InvalidCertificate(CertificateError::Other(error))
    }
}

/// Whether the certificate carries one of `names`.
fn has_one_of(names: &[CertificateName], certificate: &CertificateDer<'_>) -> Result<(), Error> {
    let leaf =
        Leaf::of(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    match leaf.names.iter().any(|has| names.iter().any(|name| name.matches(has))) {
        true => Ok(()),
        false => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Err(NoneOfNames::error(certificate, names.join(", ")))
        }
    }
}

/// Checks endpoints.
#[derive(Debug)]
pub(super) struct EndpointVerifier {
    pub(super) roots: Arc<RootCertStore>,
    /// Of which one must be there; empty for the name that was asked for.
    pub(super) names: Vec<CertificateName>,
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)
                .map_err(|_| NoneOfNames::error(end_entity, server_name.to_str().into_owned()))?;
        } else {
            has_one_of(&self.names, end_entity)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks applications: as rustls does, and then by their names.
#[derive(Debug)]
pub(super) struct ApplicationVerifier {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    /// Of which one must be there; not empty.
    pub(super) allow: Vec<CertificateName>,
}

impl ClientCertVerifier for ApplicationVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        has_one_of(&self.allow, end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
