//! What may answer, or not, at the address of an endpoint.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// Something that listens, ended with the value.
pub(crate) struct Endpoint {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A gRPC server whose health service answers with this status, if it has one.
    pub(crate) async fn grpc(health: Option<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut server) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((_, mut respond))) = server.accept().await {
                        answer(&mut respond, health);
                    }
                });
            }
        });
        Self { address, serving }
    }

    /// Takes connections and answers the first bytes with these.
    pub(crate) async fn says(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut some = [0; 24];
                if stream.read_exact(&mut some).await.is_ok() {
                    let _ = stream.write_all(answer).await;
                }
            }
        });
        Self { address, serving }
    }

    /// Speaks HTTP/2 and answers no call.
    pub(crate) async fn hangs() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                // An empty SETTINGS frame.
                let _ = stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
                held.push(stream);
            }
        });
        Self { address, serving }
    }

    /// Takes connections and says nothing.
    pub(crate) async fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Self { address, serving }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An address where nothing listens.
pub(crate) fn refused() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn answer(respond: &mut h2::server::SendResponse<Bytes>, health: Option<u8>) {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let Some(status) = health else {
        head.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
        let _ = respond.send_response(head, true);
        return;
    };
    let Ok(mut body) = respond.send_response(head, false) else { return };
    // HealthCheckResponse { status }, with its length before it.
    let _ = body.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false);
    let ok = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
    let _ = body.send_trailers(HeaderMap::from_iter(ok));
}
