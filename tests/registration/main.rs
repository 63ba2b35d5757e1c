//! Registration: a real etcd, the running program, and what may happen to either.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]
#![allow(dead_code, reason = "each test binary uses its own part of what they share")]

#[path = "../support/admin.rs"]
mod admin;
#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/metrics.rs"]
mod metrics;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/relay.rs"]
mod relay;
#[path = "../support/tls.rs"]
mod tls;
#[path = "../support/wait.rs"]
mod wait;

mod changes;
mod credentials;
mod faults;
mod leases;
mod owners;
mod probes;
mod site;
mod stopping;
