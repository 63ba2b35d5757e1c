//! Certificates, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

/// An authority with a folder of its own.
#[derive(Debug)]
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new one, below `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        let authority = Self { folder };
        let (cert, key) = (authority.cert(), authority.folder.join("ca.key"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            text(&key),
            "-out",
            text(&cert),
        ]);
        authority
    }

    /// One that this one has signed, good from one time to the other, in a folder below its own.
    #[allow(dead_code, reason = "tests/behaviour uses it")]
    pub(crate) fn sign_authority(&self, name: &str, from: SystemTime, to: SystemTime) -> Self {
        let (cert, key) = self.sign_as(name, "DNS:none", "CA:TRUE", from, to);
        let authority = Self { folder: self.folder.join(format!("of-{name}")) };
        fs::create_dir(&authority.folder).unwrap();
        fs::rename(cert, authority.cert()).unwrap();
        fs::rename(key, authority.folder.join("ca.key")).unwrap();
        authority
    }

    /// Its own certificate.
    pub(crate) fn cert(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for 127.0.0.1, as server or client, and its key.
    #[allow(dead_code, reason = "those of tests/behaviour are for names")]
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_for(name, "IP:127.0.0.1")
    }

    /// The same for these names, in openssl's words, such as `DNS:a,URI:spiffe://prod/a`, good for two
    /// days. One that is there under `name` is written over.
    pub(crate) fn sign_for(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        let day = Duration::from_secs(24 * 60 * 60);
        self.sign_between(name, names, SystemTime::now() - day, SystemTime::now() + day)
    }

    /// The same, good from one time to the other.
    pub(crate) fn sign_between(
        &self,
        name: &str,
        names: &str,
        from: SystemTime,
        to: SystemTime,
    ) -> (PathBuf, PathBuf) {
        self.sign_as(name, names, "CA:FALSE", from, to)
    }

    fn sign_as(
        &self,
        name: &str,
        names: &str,
        constraints: &str,
        from: SystemTime,
        to: SystemTime,
    ) -> (PathBuf, PathBuf) {
        let at = |end: &str| self.folder.join(format!("{name}.{end}"));
        let (cert, key, request, config) = (at("pem"), at("key"), at("csr"), at("cnf"));
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            text(&key),
            "-out",
            text(&request),
        ]);
        let database = at("index");
        fs::write(&database, "").unwrap();
        let folder = text(&self.folder);
        let text_of = format!(
            "[ca]\ndefault_ca = d\n[d]\ndatabase = {folder}/{name}.index\nnew_certs_dir = {folder}\n\
             default_md = sha256\npolicy = p\nrand_serial = yes\nx509_extensions = e\n\
             [p]\ncommonName = supplied\n\
             [e]\nsubjectAltName = {names}\nbasicConstraints = critical,{constraints}\n"
        );
        fs::write(&config, text_of).unwrap();
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            text(&config),
            "-in",
            text(&request),
            "-cert",
            text(&self.cert()),
            "-keyfile",
            text(&self.folder.join("ca.key")),
            "-startdate",
            &date(from),
            "-enddate",
            &date(to),
            "-out",
            text(&cert),
        ]);
        (cert, key)
    }
}

/// `YYYYMMDDHHMMSSZ`.
fn date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.chars().filter(|c| c.is_ascii_digit()).chain(['Z']).collect()
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
