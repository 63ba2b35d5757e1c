//! Asks the admin address, as curl would.

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

/// Asks once, on a connection of its own; `admin` is `IP:port` or `unix:/path`.
pub(crate) async fn ask(admin: &str, method: &str, path: &str) -> Page {
    ask_with(admin, method, path, "").await
}

/// The same with a body.
pub(crate) async fn ask_with(admin: &str, method: &str, path: &str, body: &str) -> Page {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: \
         {length}\r\n\r\n{body}"
    );
    let answer = match admin.strip_prefix("unix:") {
        Some(path) => exchange(UnixStream::connect(path).await.unwrap(), &request).await,
        None => exchange(TcpStream::connect(admin).await.unwrap(), &request).await,
    };
    let (head, text) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(head);
    Page { status, head: head.to_lowercase(), text: text.to_owned() }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

impl Page {
    /// Its JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect(&self.text)
    }
}
