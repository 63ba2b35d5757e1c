//! A TCP relay whose wire the test can cut, or freeze as a firewall would.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Up,
    /// Connections are open and new ones are taken, but no byte passes.
    Frozen,
    /// Connections are closed, new ones at once.
    Cut,
}

/// Forwards connections to one address.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Forwards to `target`, on a free port.
    pub(crate) async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, watched) = watch::channel(Wire::Up);
        let task = tokio::spawn(async move {
            while let Ok((downstream, _)) = listener.accept().await {
                tokio::spawn(forward(downstream, target.clone(), watched.clone()));
            }
        });
        Self { address, wire, task }
    }

    /// URL of this side.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets bytes pass.
    pub(crate) fn mend(&self) {
        self.wire.send_replace(Wire::Up);
    }

    /// Lets no byte pass.
    pub(crate) fn freeze(&self) {
        self.wire.send_replace(Wire::Frozen);
    }

    /// Closes everything.
    pub(crate) fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut downstream: TcpStream, target: String, mut wire: watch::Receiver<Wire>) {
    let mut cut = wire.clone();
    if *wire.borrow() == Wire::Cut {
        return;
    }
    if wire.wait_for(|wire| *wire == Wire::Up).await.is_err() {
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(target).await else { return };
    let (down_read, down_write) = downstream.split();
    let (up_read, up_write) = upstream.split();
    tokio::select! {
        () = pump(down_read, up_write, wire.clone()) => {}
        () = pump(up_read, down_write, wire) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut wire: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if wire.wait_for(|wire| *wire != Wire::Frozen).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
