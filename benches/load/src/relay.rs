//! A network that is some time long, in user space: each byte is passed on that much later.
//!
//! Order is kept and nothing limits how much is under way, so that only time is added. Connecting
//! takes no time here, but the first byte either way does, as SETTINGS do.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use clap::Args;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task,
};

use crate::alarm::Alarm;

/// Passes connections on, each byte some time later.
#[derive(Debug, Args)]
pub(crate) struct Relay {
    /// Where to accept connections.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to pass them on to.
    #[arg(long)]
    to: SocketAddr,
    /// Delay each way.
    #[arg(long)]
    milliseconds: f64,
}

impl Relay {
    pub(crate) async fn run(&self) -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind(self.listen).await?;
        Err(serve(&listener, self.to, Duration::from_secs_f64(self.milliseconds / 1e3))
            .await
            .into())
    }
}

/// Serves until a connection cannot be accepted.
async fn serve(listener: &TcpListener, to: SocketAddr, delay: Duration) -> io::Error {
    loop {
        match listener.accept().await {
            // A connection that breaks breaks for both ends, who see it.
            Ok((socket, _)) => drop(task::spawn_local(pass(socket, to, delay))),
            Err(error) => return error,
        }
    }
}

async fn pass(near: TcpStream, to: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = delayed(near_in, far_out, delay);
    let back = delayed(far_in, near_out, delay);
    tokio::try_join!(there, back).map(drop)
}

/// One direction. The end of what is read is passed on as late as the rest.
async fn delayed(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    delay: Duration,
) -> io::Result<()> {
    let (parts, due) = unbounded_channel();
    tokio::try_join!(read(from, parts, delay), write(to, due)).map(drop)
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    parts: UnboundedSender<(Instant, Bytes)>,
    delay: Duration,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(16 * 1024);
        let ended = from.read_buf(&mut buffer).await? == 0;
        let sent = parts.send((Instant::now() + delay, buffer.split().freeze()));
        if ended || sent.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut parts: UnboundedReceiver<(Instant, Bytes)>,
) -> io::Result<()> {
    let mut alarm = Alarm::new()?;
    while let Some((due, part)) = parts.recv().await {
        alarm.until(due).await?;
        to.write_all(&part).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_arrive_in_order_a_delay_later_each_way_and_so_does_the_end() {
        let delay = Duration::from_millis(20);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (relay, server) =
            (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let (near, far) = (relay.local_addr().unwrap(), server.local_addr().unwrap());
        let local = task::LocalSet::new();
        local.spawn_local(async move { serve(&relay, far, delay).await });
        local.spawn_local(async move {
            let (mut socket, _) = server.accept().await.unwrap();
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        local
            .run_until(async {
                let mut socket = TcpStream::connect(near).await.unwrap();
                let sent: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
                let began = Instant::now();
                let (mut from, mut to) = socket.split();
                let send = async {
                    to.write_all(&sent).await.unwrap();
                    to.shutdown().await.unwrap();
                };
                let mut received = Vec::new();
                let (_, length) = tokio::join!(send, from.read_to_end(&mut received));
                length.unwrap();
                assert!(began.elapsed() >= 2 * delay);
                assert!(received == sent);
            })
            .await;
    }
}
