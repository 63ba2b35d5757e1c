//! What becomes of calls while the registry, the endpoints, the network or the host are in trouble: real
//! etcds are killed, frozen, cut off, emptied, compacted and restored behind a running program, endpoints
//! die and stand still, and no call may be lost by it that could have been answered.
//! `docs/reliability.md` names each test.
//!
//! Each test has its own etcd, endpoints and proxy. What only shows after minutes is `#[ignore]`d:
//! `make test-long`.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]
#![allow(dead_code, reason = "other tests use the rest of what is shared")]

#[path = "../support/admin.rs"]
mod admin;
#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/flow.rs"]
mod flow;
#[path = "../support/metrics.rs"]
mod metrics;
#[path = "../support/namespaces.rs"]
mod namespaces;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/relay.rs"]
mod relay;
#[path = "../support/tls.rs"]
mod tls;
#[path = "../support/wait.rs"]
mod wait;

mod brake;
mod cgroup;
mod clock;
mod credentials;
mod descriptors;
mod endpoints;
mod history;
mod host;
mod leaf;
mod load;
mod members;
mod network;
mod outages;
mod readers;
mod restart;
mod scene;
