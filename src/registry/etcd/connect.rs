//! Connects to one member after the other.

use std::{fs, path::Path, sync::Arc};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::config::EtcdSource;

use super::{
    CONNECT_TIMEOUT, EtcdError, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Member, Position,
    REQUEST_TIMEOUT,
};

/// The members of one cluster, taken in turn.
#[derive(Clone, Debug)]
pub struct Members {
    source: EtcdSource,
    next: usize,
}

impl Members {
    /// Starts at a random member, so that a fleet spreads over the cluster.
    pub fn new(source: EtcdSource) -> Self {
        let next = fastrand::usize(..source.endpoints.len().max(1));
        Self { source, next }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.source.endpoints.len()
    }

    /// Leaves out so many members.
    pub const fn skip(&mut self, count: usize) {
        self.next = self.next.wrapping_add(count);
    }

    /// Whether there is none to connect to.
    pub const fn is_empty(&self) -> bool {
        self.source.endpoints.is_empty()
    }

    /// Connects to the next member and asks where it stands, so that a connection is one that works.
    ///
    /// # Errors
    /// [`EtcdError`] when this member cannot be used now; the next call tries the next one.
    pub async fn connect(&mut self) -> Result<(Member, Position), EtcdError> {
        let count = self.source.endpoints.len();
        let url = self.source.endpoints.get(self.next % count.max(1));
        let url = url.map_or("", |url| url.as_str());
        self.next = (self.next + 1) % count.max(1);

        let endpoint: Arc<str> = without_user(url).into();
        let options = self.options(url)?;
        let client = Client::connect([url], Some(options)).await;
        let client = client.map_err(|error| EtcdError::call(&endpoint, "connect", &error))?;
        let member = Member { client, endpoint };
        let position = member.position().await?;
        Ok((member, position))
    }

    /// Connects to the first member that works, each being tried once.
    ///
    /// # Errors
    /// [`EtcdError`] of the last member, when none can be used now.
    pub async fn connect_any(&mut self) -> Result<(Member, Position), EtcdError> {
        for _ in 1..self.len() {
            if let Ok(connected) = self.connect().await {
                return Ok(connected);
            }
        }
        self.connect().await
    }

    fn options(&self, url: &str) -> Result<ConnectOptions, EtcdError> {
        let source = &self.source;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if !source.username.is_empty() {
            let password = match &source.password_file {
                Some(path) => String::from_utf8_lossy(&read(path)?).trim_end().to_owned(),
                None => String::new(),
            };
            options = options.with_user(&source.username, password);
        }
        if url.starts_with("https://") {
            let mut tls = match &source.ca_file {
                Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?)),
                None => TlsOptions::new().with_native_roots(),
            };
            if let (Some(cert), Some(key)) = (&source.cert_file, &source.key_file) {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            options = options.with_tls(tls);
        }
        Ok(options)
    }
}

/// A URL as it may be shown: without `user:password@`.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    fs::read(path)
        .map_err(|problem| EtcdError::File { path: path.to_owned(), problem: Arc::new(problem) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_password() {
        assert_eq!(without_user("https://root:secret@10.0.0.1:2379"), "https://10.0.0.1:2379");
        assert_eq!(without_user("http://10.0.0.1:2379"), "http://10.0.0.1:2379");
        assert_eq!(without_user("10.0.0.1:2379"), "10.0.0.1:2379");
    }
}
