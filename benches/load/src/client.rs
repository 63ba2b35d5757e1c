//! Connections to a proxy, and calls on them that are checked. `calls` and `held` use it.

use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use clap::Args;
use h2::{
    Ping, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{Method, Request};
use tokio::net::TcpStream;

/// Whom to call, and what a call is.
#[derive(Debug, Args)]
pub(crate) struct Work {
    /// Address of the proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections to it.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Path of each call.
    #[arg(long)]
    path: String,
    /// Bytes of a request's message, its prefix of five included.
    #[arg(long)]
    request_bytes: usize,
    /// Bytes of an answer's body; any other number is wrong.
    #[arg(long)]
    response_bytes: usize,
    /// Services to call in turn, `svc-0000` and so on; 0: the one called `bench`.
    #[arg(long, default_value_t = 0)]
    services: usize,
}

/// What is sent: made once, so that a call costs this program little.
#[derive(Debug)]
pub(crate) struct Script {
    heads: Vec<Request<()>>,
    message: Bytes,
    answer: usize,
}

impl Work {
    pub(crate) fn script(&self) -> Result<Script, http::Error> {
        let names = match self.services {
            0 => vec!["bench".to_owned()],
            count => (0..count).map(|number| format!("svc-{number:04}")).collect(),
        };
        let head = |name: &String| {
            Request::builder()
                .method(Method::POST)
                .uri(format!("http://{name}{}", self.path))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
        };
        let length = self.request_bytes.saturating_sub(5);
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        message.resize(5 + length, b'm');
        Ok(Script {
            heads: names.iter().map(head).collect::<Result<_, _>>()?,
            message: message.into(),
            answer: self.response_bytes,
        })
    }

    /// Opens all connections; returns when the proxy has answered on each.
    pub(crate) async fn connect(&self) -> Result<Vec<SendRequest<Bytes>>, Box<dyn Error>> {
        let mut senders = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let socket = TcpStream::connect(self.target).await?;
            socket.set_nodelay(true)?;
            let mut builder = client::Builder::new();
            // Answers are not what this program is to slow down.
            builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 30);
            let (sender, mut connection) = builder.handshake(socket).await?;
            let ping = connection.ping_pong();
            // How it ends shows in the calls.
            tokio::task::spawn_local(connection);
            if let Some(mut ping) = ping {
                // Its SETTINGS come before its answer: from now on its limits are known.
                ping.ping(Ping::opaque()).await?;
            }
            senders.push(sender);
        }
        Ok(senders)
    }
}

/// A call whose head and message have been sent, and that waits for its end.
#[derive(Debug)]
pub(crate) struct Open {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Script {
    /// Makes call `number`. An error says what was wrong with the answer.
    pub(crate) async fn call(
        &self,
        sender: SendRequest<Bytes>,
        number: usize,
    ) -> Result<(), String> {
        let (response, mut body) = self.head(sender, number).await.map_err(text)?;
        body.send_data(self.message.clone(), true).map_err(text)?;
        self.check(response).await
    }

    /// Begins a call and leaves it open.
    pub(crate) async fn open(&self, sender: SendRequest<Bytes>) -> Result<Open, String> {
        let (response, mut body) = self.head(sender, 0).await.map_err(text)?;
        body.send_data(self.message.clone(), false).map_err(text)?;
        Ok(Open { response, body })
    }

    /// Ends a call that was left open, and checks the answer.
    pub(crate) async fn end(&self, mut open: Open) -> Result<(), String> {
        open.body.send_data(Bytes::new(), true).map_err(text)?;
        self.check(open.response).await
    }

    async fn head(
        &self,
        sender: SendRequest<Bytes>,
        number: usize,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let head = self.heads[number % self.heads.len()].clone();
        sender.ready().await?.send_request(head, false)
    }

    async fn check(&self, response: ResponseFuture) -> Result<(), String> {
        let (head, mut body) = response.await.map_err(text)?.into_parts();
        let mut length = 0;
        while let Some(part) = body.data().await {
            let part = part.map_err(text)?;
            length += part.len();
            body.flow_control().release_capacity(part.len()).map_err(text)?;
        }
        let trailers = body.trailers().await.map_err(text)?.unwrap_or_default();
        let code = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
        let code = code.map_or("none", |code| code.to_str().unwrap_or("unreadable"));
        if head.status == 200 && code == "0" && length == self.answer {
            return Ok(());
        }
        Err(format!("status {}, grpc-status {code}, {length} bytes", head.status.as_u16()))
    }
}

fn text(error: h2::Error) -> String {
    error.to_string()
}
