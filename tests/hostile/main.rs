//! What applications and endpoints do that mean harm, frame by frame: the program stays alive and small,
//! whoever floods is cut off, and nobody else notices. `docs/security.md` names each test.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]
#![allow(dead_code, reason = "other tests use the rest of what is shared")]

#[path = "../support/admin.rs"]
mod admin;
#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/metrics.rs"]
mod metrics;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/wait.rs"]
mod wait;

mod connections;
mod endpoints;
mod floods;
mod malformed;
mod memory;
mod resets;
mod scene;
mod stalls;
mod unpacking;
