//! How the commands that ask a running proxy show who they are, and know whom they ask.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::{AdminSettings, read_token};
use crate::tls::Asker;

/// What an admin address may ask for.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AdminProof {
    /// File that holds the token which the proxy's admin address asks for
    #[arg(long, value_name = "FILE", env = "PILLION_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Certificates (PEM) of the authorities that sign for an https admin address; the system's without
    #[arg(long, value_name = "FILE", env = "PILLION_ADMIN_CA_FILE")]
    admin_ca_file: Option<PathBuf>,

    /// Client certificate (PEM) for an https admin address
    #[arg(long, value_name = "FILE", env = "PILLION_ADMIN_CERT_FILE", requires = "admin_key_file")]
    admin_cert_file: Option<PathBuf>,

    /// Key (PEM) of --admin-cert-file
    #[arg(long, value_name = "FILE", env = "PILLION_ADMIN_KEY_FILE", requires = "admin_cert_file")]
    admin_key_file: Option<PathBuf>,
}

impl AdminProof {
    /// With the token of `settings` where none is given.
    pub(super) fn or_token_of(&self, settings: &AdminSettings) -> Self {
        let mut proof = self.clone();
        proof.admin_token_file = proof.admin_token_file.or_else(|| settings.token_file.clone());
        proof
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// Its file gives none.
    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        self.admin_token_file.as_deref().map(read_token).transpose().map_err(Failure::failed)
    }

    /// The TLS for an https address.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn asker(&self) -> Result<Asker, Failure> {
        let identity = self.admin_cert_file.as_deref().zip(self.admin_key_file.as_deref());
        Asker::new(self.admin_ca_file.as_deref(), identity).map_err(Failure::failed)
    }
}
