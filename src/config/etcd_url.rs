//! Client URL of an etcd member, as the file and `--etcd` write it.

use std::{fmt, str::FromStr};

use super::value::Text;

/// `http://host:port` or `https://host:port`, without a path and without a password: that belongs in
/// `password_file`, so that no configuration that is printed holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUrl(pub(super) String);

/// Why a text is not the URL of an etcd member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdUrlError {
    /// No scheme, another one than these two, or no host.
    #[error("{0:?} is not the URL of an etcd member; write http://host:port or https://host:port")]
    Form(String),
    /// `user:password@`.
    #[error("an etcd URL holds no user; write `username` and `password_file` instead")]
    User,
    /// More than a host and a port.
    #[error("{0:?} has a path, which etcd does not know; the start of its keys is `prefix`")]
    Path(String),
}

impl EtcdUrl {
    /// The URL as it was written, less a `/` at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl FromStr for EtcdUrl {
    type Err = EtcdUrlError;

    fn from_str(text: &str) -> Result<Self, EtcdUrlError> {
        // Anywhere, and first: no other error may repeat a password, and one with a `#` in it would hide
        // the rest.
        if text.contains('@') {
            return Err(EtcdUrlError::User);
        }
        let form = || EtcdUrlError::Form(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| form())?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(form());
        };
        let (host, port) = (authority.host(), authority.port_u16());
        let has_port = authority.as_str().len() > host.len();
        if host.is_empty() || port == Some(0) || has_port != port.is_some() || text.contains('#') {
            return Err(form());
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(EtcdUrlError::Path(text.to_owned()));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text for EtcdUrl {
    fn allowed() -> String {
        "\"http://host:port\" or \"https://host:port\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|wrong: EtcdUrlError| wrong.to_string())
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_a_scheme_a_host_and_a_port() {
        for good in ["http://127.0.0.1:2379", "https://etcd-0.etcd:2379", "http://[::1]:2379"] {
            assert_eq!(good.parse::<EtcdUrl>().unwrap().as_str(), good);
        }
        assert_eq!("http://a:1/".parse::<EtcdUrl>().unwrap().as_str(), "http://a:1");
        for bad in [
            "",
            "127.0.0.1:2379",
            "etcd:2379",
            "ftp://a:1",
            "http://",
            "http://:1",
            "/a",
            "http://a:b",
            "http://a:1#b",
        ] {
            assert_eq!(bad.parse::<EtcdUrl>(), Err(EtcdUrlError::Form(bad.to_owned())), "{bad}");
        }
        assert!(matches!("http://a:1/v3".parse::<EtcdUrl>(), Err(EtcdUrlError::Path(_))));
    }

    #[test]
    fn a_password_in_a_url_is_refused_without_repeating_it() {
        for url in ["http://root:secret@a:1", "http://root:#secret@a:1", "http://root:a secret@a:1"]
        {
            let wrong = url.parse::<EtcdUrl>().unwrap_err();
            assert!(!wrong.to_string().contains("secret"), "{wrong}");
        }
    }
}
