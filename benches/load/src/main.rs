//! What the benchmark sends calls with where h2load cannot: `benches/bench/tools.py` runs it.
//!
//! One thread, since it is pinned to one core. Results go to stdout as JSON; what cannot be done
//! is an error on stderr and status 1.

mod alarm;
mod calls;
mod client;
mod held;
mod relay;
mod summary;

use std::error::Error;

use clap::Parser;
use tokio::{runtime::Builder, task::LocalSet};

/// Load for the benchmark.
#[derive(Debug, Parser)]
enum Command {
    /// Makes calls, at a steady rate or as fast as they are answered, and sums up their times.
    Calls(calls::Calls),
    /// Opens streams and keeps them open, step by step: a line on stdin for each.
    Held(held::Held),
    /// Passes connections on, each byte some time later.
    Relay(relay::Relay),
}

fn main() -> Result<(), Box<dyn Error>> {
    let command = Command::parse();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Calls(calls) => print(&calls.run().await?),
            Command::Held(held) => held.run().await,
            Command::Relay(relay) => relay.run().await,
        }
    })
}

fn print(summary: &summary::Summary) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string(summary)?);
    Ok(())
}
