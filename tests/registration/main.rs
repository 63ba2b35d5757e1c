//! Registration: a real etcd, the running program, and what may happen to either.

#![allow(clippy::unwrap_used)]
// Each test binary uses its own part of what the binaries share.
#![allow(dead_code)]

#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/wait.rs"]
mod wait;

mod leases;
