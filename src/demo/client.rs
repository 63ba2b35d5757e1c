//! A gRPC client on one connection to the proxy, as an application would have.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, Version};
use tokio::{net::TcpStream, task::spawn_local};

/// Who answered a call.
pub(super) struct Answer {
    /// Name of the server.
    pub(super) server: String,
    /// Attempts that it took.
    pub(super) attempt: u32,
}

/// One connection.
pub(super) struct Client {
    send: SendRequest<Bytes>,
}

impl Client {
    pub(super) async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        spawn_local(async move { drop(connection.await) });
        Ok(Self { send })
    }

    /// One unary call of `/demo.Echo/Say`; an error is what an application would be told.
    pub(super) async fn call(&mut self, service: &str, text: &str) -> Result<Answer, String> {
        let request = request(service).map_err(|error| error.to_string())?;
        self.exchange(request, message(text)).await.map_err(|error| error.to_string())?
    }

    async fn exchange(
        &mut self,
        request: Request<()>,
        message: Bytes,
    ) -> Result<Result<Answer, String>, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let text = |headers: &HeaderMap, name| {
            headers
                .get(name)
                .map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let status = text(&trailers, "grpc-status").or_else(|| text(&head.headers, "grpc-status"));
        if status.as_deref() == Some("0") {
            let attempt =
                text(&head.headers, "seen-attempt").and_then(|attempt| attempt.parse().ok());
            let server = text(&head.headers, "server-name").unwrap_or_default();
            return Ok(Ok(Answer { server, attempt: attempt.unwrap_or(1) }));
        }
        let message =
            text(&head.headers, "grpc-message").or_else(|| text(&trailers, "grpc-message"));
        Ok(Err(message.unwrap_or_else(|| format!("grpc-status {status:?}"))))
    }
}

fn request(service: &str) -> http::Result<Request<()>> {
    Request::post(format!("http://{service}/demo.Echo/Say"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .body(())
}

/// A message with one string, field 1: `message Say { string text = 1; }`.
fn message(text: &str) -> Bytes {
    let text = &text.as_bytes()[..text.len().min(100)];
    let length = text.len() as u8;
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::from(length) + 2);
    message.put_slice(&[0x0a, length]);
    message.put_slice(text);
    message.freeze()
}
