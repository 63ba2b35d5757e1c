//! What users rely on, proven on the program itself: one file a topic, against gRPC libraries, and
//! against peers that do what well-behaved ones never do.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]

#[path = "../support/admin.rs"]
mod admin;
#[path = "../support/backend.rs"]
#[allow(dead_code, reason = "tests/chaos uses the rest")]
mod backend;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/etcd.rs"]
#[allow(dead_code, reason = "tests/discovery.rs uses the rest")]
mod etcd;
#[path = "../support/metrics.rs"]
mod metrics;
#[path = "../support/namespaces.rs"]
mod namespaces;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/python.rs"]
mod python;
#[path = "../support/raw.rs"]
#[allow(dead_code, reason = "tests/hostile uses the rest")]
mod raw;
#[path = "../support/tls.rs"]
mod tls;
#[path = "../support/tls_peer.rs"]
mod tls_peer;
#[path = "../support/tonic_peer.rs"]
mod tonic_peer;
#[path = "../support/wait.rs"]
mod wait;

mod access_log;
mod admin_access;
mod admin_pages;
mod admin_tls;
mod balancing;
mod calls;
mod churn;
mod commands;
mod connections;
mod deadlines;
mod ejection;
mod errors;
mod explained;
mod formats;
mod frames;
mod goaway;
mod headers;
mod health_checks;
mod hedging;
mod interop;
mod ledger;
mod limits;
mod live_policy;
mod networks;
#[cfg(debug_assertions)]
mod panics;
mod policy;
mod ports;
mod privileges;
mod registry;
mod reload;
mod retries;
mod retry_policy;
mod retry_storms;
mod routes;
mod scrape;
mod stopping;
mod streams;
mod tls_calls;
mod tls_hostile;
mod tls_interop;
mod tls_mutual;
mod tls_reload;
mod tls_sessions;
mod volume;
