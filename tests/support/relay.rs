//! A relay of HTTP/2 connections whose wire the test can cut, freeze as a firewall would, or make
//! deaf to the streams that stay open.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

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
    /// Single questions are answered; what is said on streams that stay open, such as watches, is lost.
    Mute,
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

    /// Closes every connection; new ones are served.
    pub(crate) async fn break_off(&self) {
        self.cut();
        // For whoever watches the wire to see it.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        self.mend();
    }

    /// Loses what is said on streams that stay open.
    pub(crate) fn mute(&self) {
        self.wire.send_replace(Wire::Mute);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Streams whose request is complete: the others may stay open for ever.
type Asked = Arc<Mutex<HashSet<u32>>>;

async fn forward(mut downstream: TcpStream, target: String, mut wire: watch::Receiver<Wire>) {
    let mut cut = wire.clone();
    if *wire.borrow() == Wire::Cut {
        return;
    }
    if wire.wait_for(|wire| *wire != Wire::Frozen).await.is_err() {
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(target).await else { return };
    let (down_read, down_write) = downstream.split();
    let (up_read, up_write) = upstream.split();
    let asked = Asked::default();
    tokio::select! {
        _ = ask(down_read, up_write, wire.clone(), &asked) => {}
        _ = answer(up_read, down_write, wire, &asked) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn ask(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut wire: watch::Receiver<Wire>,
    asked: &Asked,
) -> io::Result<()> {
    let mut preface = [0; 24];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let frame = Frame::read(&mut from).await?;
        if frame.ends_its_stream() {
            asked.lock().unwrap().insert(frame.stream());
        }
        frame.write(&mut to, &mut wire).await?;
    }
}

async fn answer(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut wire: watch::Receiver<Wire>,
    asked: &Asked,
) -> io::Result<()> {
    loop {
        let frame = Frame::read(&mut from).await?;
        let said_unasked = frame.is_data() && !asked.lock().unwrap().contains(&frame.stream());
        if !(said_unasked && *wire.borrow() == Wire::Mute) {
            frame.write(&mut to, &mut wire).await?;
        }
    }
}

/// One frame (RFC 9113 section 4.1), head included.
struct Frame(Vec<u8>);

impl Frame {
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut frame = vec![0; 9];
        from.read_exact(&mut frame).await?;
        let length =
            usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        frame.resize(9 + length, 0);
        from.read_exact(&mut frame[9..]).await?;
        Ok(Self(frame))
    }

    async fn write(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        wire: &mut watch::Receiver<Wire>,
    ) -> io::Result<()> {
        wire.wait_for(|wire| *wire != Wire::Frozen).await.map_err(io::Error::other)?;
        to.write_all(&self.0).await
    }

    fn is_data(&self) -> bool {
        self.0[3] == 0
    }

    fn ends_its_stream(&self) -> bool {
        self.0[3] <= 1 && self.0[4] & 1 == 1
    }

    fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[5] & 0x7f, self.0[6], self.0[7], self.0[8]])
    }
}
