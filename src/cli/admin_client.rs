//! Asks a running proxy over its admin address. Used by `services`, `why`, `calls` and `doctor`.

use std::{error::Error, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use bytes::{Bytes, BytesMut};
use clap::Args;
use http::{
    Request, StatusCode,
    header::{AUTHORIZATION, HOST},
    uri::Authority,
};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::tls::{self, Asker};

use super::{
    admin_proof::AdminProof,
    failure::{Failure, print, print_on},
    output::Output,
};

/// Longest time that an answer may take, connecting included.
const LIMIT: Duration = Duration::from_secs(5);

/// What must be escaped in the value of a query parameter: all but what RFC 3986 calls unreserved.
pub(super) const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What the commands that ask a running proxy share.
#[derive(Debug, Args)]
pub(super) struct AdminFlags {
    /// Admin address of the proxy: http://host:port, https://host:port or unix:/path
    #[arg(long, value_name = "URL", env = "PILLION_ADMIN")]
    #[arg(default_value = "http://127.0.0.1:4191")]
    admin: AdminUrl,

    #[command(flatten)]
    proof: AdminProof,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Where a proxy answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminUrl {
    /// `host:port`.
    Http(Authority),
    /// The same, by TLS.
    Https(Authority),
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// Asks a proxy.
pub(super) struct AdminClient {
    url: AdminUrl,
    token: Option<String>,
    /// For https.
    asker: Option<Asker>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// Nothing listens there.
    #[error("no proxy answers at {url}; is `pillion run` running? give --admin")]
    Absent { url: String, source: io::Error },
    /// Something listens, but the exchange failed.
    #[error(
        "what answers at {url} does not speak HTTP/1.1 as an admin address does; one with [admin.tls] \
         is https://"
    )]
    Broken { url: String, source: Box<dyn Error + Send + Sync> },
    /// TLS is to be spoken, and was not agreed on.
    #[error("no TLS with {url}: {failure}{}", advice(.failure.why))]
    Tls { url: String, failure: tls::Failure },
    /// It takes too long.
    #[error("no answer from {url} within {} s", LIMIT.as_secs())]
    Slow { url: String },
    /// It answered, but not with what was asked for.
    #[error("the proxy at {url} answers {status}: {text}")]
    Refused { url: String, status: StatusCode, text: String },
    /// The answer has another form than this version of `pillion` knows.
    #[error("the answer from {url} is not understood; -o json prints it as it is")]
    Unknown { url: String, source: serde_json::Error },
}

impl AdminFlags {
    fn client(&self) -> Result<AdminClient, Failure> {
        AdminClient::new(self.admin.clone(), &self.proof)
    }

    /// Asks for `path` and prints the answer: as it came, or as `table` shows it.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = self.client()?;
        let answer = runtime.map_err(Failure::failed)?.block_on(client.get(path));
        let answer = answer.map_err(Failure::failed)?;
        if self.output == Output::Json {
            return print([answer.trim_ascii_end(), b"\n"].concat());
        }
        let unknown = |source| AdminError::Unknown { url: self.admin.to_string(), source };
        let answer = serde_json::from_slice(&answer).map_err(|e| Failure::failed(unknown(e)))?;
        print(table(&answer))
    }

    /// Asks for `path`, whose answer goes on, and prints each line of it as it comes: as it is, or as
    /// `text` shows it. Ends with the answer, or when nobody reads on.
    pub(super) fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        text: impl Fn(T) -> String,
    ) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = self.client()?;
        let unknown = |source| AdminError::Unknown { url: self.admin.to_string(), source };
        let show = |line: &[u8]| {
            if self.output == Output::Json {
                return print_on([line, b"\n"].concat());
            }
            let line = serde_json::from_slice(line).map_err(|e| Failure::failed(unknown(e)))?;
            print_on(text(line))
        };
        runtime.map_err(Failure::failed)?.block_on(async {
            let mut answer = client.within(client.open(path)).await.map_err(Failure::failed)?;
            let mut pending = BytesMut::new();
            while let Some(frame) = answer.frame().await {
                let frame = frame.map_err(|e| Failure::failed(client.broken(e)))?;
                pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    if !show(pending.split_to(end + 1).trim_ascii_end())? {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }
}

impl AdminClient {
    /// Asks at `url`, with what `proof` has.
    pub(super) fn new(url: AdminUrl, proof: &AdminProof) -> Result<Self, Failure> {
        let asker = matches!(url, AdminUrl::Https(_)).then(|| proof.asker()).transpose()?;
        Ok(Self { url, token: proof.token()?, asker })
    }

    /// The body of what `GET path` answers.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, AdminError> {
        self.within(async {
            let answer = self.open(path).await?;
            Ok(answer.collect().await.map_err(|e| self.broken(e))?.to_bytes())
        })
        .await
    }

    /// The same, not read yet.
    async fn open(&self, path: &str) -> Result<Incoming, AdminError> {
        match &self.url {
            AdminUrl::Http(host) => {
                let tcp = self.there(TcpStream::connect(host.as_str()).await)?;
                self.exchange(tcp, host.as_str(), path).await
            }
            AdminUrl::Https(host) => {
                let tcp = self.there(TcpStream::connect(host.as_str()).await)?;
                let asker = self.asker.as_ref().ok_or_else(|| self.broken("no TLS"))?;
                let tls = asker.connect(tcp, host.host()).await;
                let tls = tls.map_err(|failure| self.insecure(failure))?;
                self.exchange(tls, host.as_str(), path).await
            }
            AdminUrl::Unix(socket) => {
                let unix = self.there(UnixStream::connect(socket).await)?;
                self.exchange(unix, "localhost", path).await
            }
        }
    }

    fn there<S>(&self, stream: io::Result<S>) -> Result<S, AdminError> {
        stream.map_err(|source| AdminError::Absent { url: self.url.to_string(), source })
    }

    fn insecure(&self, failure: tls::Failure) -> AdminError {
        AdminError::Tls { url: self.url.to_string(), failure }
    }

    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        let slow = |_| AdminError::Slow { url: self.url.to_string() };
        tokio::time::timeout(LIMIT, answer).await.map_err(slow)?
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        host: &str,
        path: &str,
    ) -> Result<Incoming, AdminError> {
        let url = || self.url.to_string();
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        // Ends with the runtime; what goes wrong with it shows in the answer.
        tokio::spawn(connection);
        let mut request = Request::get(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| self.broken(e))?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(e))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let body = response.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes();
        Err(AdminError::Refused { url: url(), status, text: reason(&body) })
    }

    fn broken(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> AdminError {
        let source = source.into();
        // What a proxy has against our certificate comes after the handshake.
        if self.asker.is_some()
            && let Some(error) = io_error(&*source)
        {
            return self.insecure(tls::Failure::of(error));
        }
        AdminError::Broken { url: self.url.to_string(), source }
    }
}

/// The error of the connection among the causes of another.
fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let causes = std::iter::successors(Some(error), |error| <dyn Error>::source(*error));
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).next()
}

/// What to do about it.
const fn advice(why: tls::Why) -> &'static str {
    match why {
        tls::Why::PeerWantsCertificate | tls::Why::PeerUnknownCa | tls::Why::PeerRefused => {
            "; give --admin-cert-file and --admin-key-file of a certificate that it lets in"
        }
        tls::Why::Closed => "; it may want a certificate: see --admin-cert-file",
        tls::Why::UnknownCa => "; give its authority by --admin-ca-file",
        tls::Why::NotTls => "; without [admin.tls] it is http://",
        _ => "",
    }
}

/// The words of a refusal: `{"error": ...}`, or the text as it is.
fn reason(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { error }) => error,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    /// The scheme may be left out, so that the `PILLION_ADMIN` of the proxy serves here too.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("{text:?} is not http://host:port, https://host:port or unix:/path");
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Unix(path.into())).ok_or_else(refuse);
        }
        let (host, scheme): (_, fn(Authority) -> Self) = match text.strip_prefix("https://") {
            Some(host) => (host, Self::Https),
            None => (text.strip_prefix("http://").unwrap_or(text), Self::Http),
        };
        let authority: Authority = host.trim_end_matches('/').parse().map_err(|_| refuse())?;
        let usable = authority.port_u16().is_some() && !authority.host().is_empty();
        usable.then(|| scheme(authority)).ok_or_else(refuse)
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(host) => write!(f, "http://{host}"),
            Self::Https(host) => write!(f, "https://{host}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_url_or_what_the_proxy_itself_was_given() {
        for (text, url) in [
            ("http://127.0.0.1:4191", "http://127.0.0.1:4191"),
            ("http://admin.local:80/", "http://admin.local:80"),
            ("https://admin.local:80/", "https://admin.local:80"),
            ("0.0.0.0:4191", "http://0.0.0.0:4191"),
            ("[::1]:4191", "http://[::1]:4191"),
            ("unix:/run/admin.sock", "unix:/run/admin.sock"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), url);
        }
        for bad in ["", "http://", "https://a", "http://a", "http://a:1/x", "unix:a", "a b:1"] {
            assert!(bad.parse::<AdminUrl>().is_err(), "{bad:?}");
        }
    }
}
