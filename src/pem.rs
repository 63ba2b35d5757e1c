//! Certificates, keys and authorities in PEM files: read, checked against each other, and dated.
//!
//! [`crate::config`] checks files with this before it takes a configuration, [`crate::tls`] speaks with
//! what is read. Nothing here keeps anything, and no error says anything of what is in a key.

mod leaf;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

pub use leaf::Leaf;

/// The cryptography of all of the program's TLS.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

/// A certificate with its chain, and the key that belongs to it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What rustls presents.
    pub certified: Arc<CertifiedKey>,
    /// What the certificate says.
    pub leaf: Leaf,
}

/// Certificates that others are believed by.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// What rustls checks against; never empty.
    pub roots: Arc<RootCertStore>,
    /// The one that expires first; none for those of the system.
    pub first_to_expire: Option<Leaf>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds nothing of the kind, or something that is damaged.
    #[error("{}: {wrong}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is allowed.
        wrong: String,
    },
    /// Key and certificate are of different pairs.
    #[error("{}: is not the key of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The system has no certificates of authorities.
    #[error("this system has no certificates of authorities ({0}); name a file of them with `ca`")]
    NoSystemAuthorities(String),
}

impl PemError {
    /// Whether it is about this file.
    pub fn is_of(&self, file: &Path) -> bool {
        match self {
            Self::Unreadable { path, .. } | Self::Wrong { path, .. } => path == file,
            Self::Mismatch { key, .. } => key == file,
            Self::NoSystemAuthorities(_) => false,
        }
    }
}

/// The certificate of `cert`, followed by its chain, with the key of `key`.
///
/// # Errors
/// [`PemError`] names the file. That a certificate is out of date is none: see [`Leaf`].
pub fn identity(cert: &Path, key: &Path) -> Result<Identity, PemError> {
    let chain = certificates(cert)?;
    let leaf = Leaf::of(&chain[0]).ok_or_else(|| damaged(cert))?;
    let signing = PROVIDER
        .key_provider
        .load_private_key(private_key(key)?)
        .map_err(|error| wrong(key, format!("no key that can be used ({error}); allowed: RSA of 2048 bits or more, ECDSA P-256 or P-384, Ed25519")))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(PemError::Mismatch { cert: cert.to_owned(), key: key.to_owned() });
        }
        Err(error) => return Err(wrong(cert, error.to_string())),
    }
    Ok(Identity { certified: Arc::new(certified), leaf })
}

/// The authorities of a file.
///
/// # Errors
/// [`PemError`] names the file.
pub fn authorities(path: &Path) -> Result<Authorities, PemError> {
    let mut roots = RootCertStore::empty();
    let mut first: Option<Leaf> = None;
    for certificate in certificates(path)? {
        let leaf = Leaf::of(&certificate).ok_or_else(|| damaged(path))?;
        if first.as_ref().is_none_or(|first| leaf.not_after < first.not_after) {
            first = Some(leaf);
        }
        roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
    }
    Ok(Authorities { roots: Arc::new(roots), first_to_expire: first })
}

/// The authorities that the system trusts. Reads some hundred kilobytes.
///
/// # Errors
/// [`PemError::NoSystemAuthorities`].
pub fn system_authorities() -> Result<Authorities, PemError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(PemError::NoSystemAuthorities(match errors.is_empty() {
            true => "the package ca-certificates is not installed".to_owned(),
            false => errors.join(", "),
        }));
    }
    Ok(Authorities { roots: Arc::new(roots), first_to_expire: None })
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, "holds no certificate; allowed: PEM, \"BEGIN CERTIFICATE\"")),
        Err(error) => Err(wrong(path, format!("is not PEM: {error:?}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let encrypted = bytes.windows(9).any(|part| part == b"ENCRYPTED");
        let what = if encrypted { "holds an encrypted key" } else { "holds no key" };
        wrong(path, format!("{what}; allowed: PEM of PKCS#8, PKCS#1 or SEC1, not encrypted"))
    })
}

/// Most bytes of a file: bundles of authorities have some hundred kilobytes.
const LARGEST: u64 = 8 << 20;

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let unreadable = |source| PemError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LARGEST), &mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn wrong(path: &Path, wrong: impl Into<String>) -> PemError {
    PemError::Wrong { path: path.to_owned(), wrong: wrong.into() }
}

fn damaged(path: &Path) -> PemError {
    wrong(path, "holds something that is no X.509 certificate")
}
