//! pillion: a per-host sidecar proxy for gRPC services registered in etcd.
//!
//! # Layout, bottom up
//! [`model`] the nouns; [`config`] the file and the settings; [`metrics`] what Prometheus scrapes;
//! [`registry`] etcd and the record formats; [`discovery`] sources to snapshots; [`balance`] picks;
//! [`connect`] dial, fresh, warm, pooled; [`middleware`] the path of a call, one file a stage;
//! [`proxy`] their order; [`listener`] accept and serve; [`admin`], [`app`], [`cli`] the process.

pub mod cli;
pub mod config;
pub mod discovery;
pub mod model;
pub mod registry;
pub mod watch_file;
