//! Streams that are open all at once, for as long as the benchmark looks at the proxy's memory.
//!
//! Each step is announced by a word on stdout, and the next one begins with a line on stdin:
//! `connected` (each connection has made one call), `open` (all streams have sent their message and
//! wait for their end), `answered` (all were ended and their answers are right; connections are
//! closed).

use std::{
    error::Error,
    io::{self, Write},
};

use clap::Args;
use tokio::task;

use crate::client::Work;

/// Opens streams and keeps them open.
#[derive(Debug, Args)]
pub(crate) struct Held {
    #[command(flatten)]
    work: Work,
    /// Streams on each connection.
    #[arg(long)]
    streams: usize,
}

impl Held {
    pub(crate) async fn run(&self) -> Result<(), Box<dyn Error>> {
        let script = self.work.script()?;
        let senders = self.work.connect().await?;
        for sender in &senders {
            script.call(sender.clone(), 0).await?;
        }
        step("connected").await?;

        let mut streams = Vec::new();
        for sender in &senders {
            for _ in 0..self.streams {
                streams.push(script.open(sender.clone()).await?);
            }
        }
        step("open").await?;

        for stream in streams {
            script.end(stream).await?;
        }
        drop(senders);
        step("answered").await
    }
}

/// Says what has been done, and waits until the next step is wanted. Connections live meanwhile.
async fn step(done: &str) -> Result<(), Box<dyn Error>> {
    println!("{done}");
    io::stdout().flush()?;
    task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}
