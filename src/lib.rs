//! pillion: a per-host sidecar proxy for gRPC services registered in etcd.
//!
//! # Layout, bottom up
//! [`model`] the nouns; [`formats`] what frameworks write; [`config`] the file and the settings; [`metrics`] what Prometheus scrapes;
//! [`registry`] etcd; [`discovery`] sources to snapshots; [`balance`] picks; [`limit`] how many calls are let through;
//! [`connect`] dial, fresh, warm, pooled; [`middleware`] the path of a call, one file a stage;
//! [`proxy`] their order; [`listener`] accept and serve; [`admin`], [`app`], [`cli`] the process.

pub mod access_log;
pub mod account;
pub mod admin;
pub mod alarm;
pub mod app;
pub mod backoff;
pub mod balance;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod demo;
pub mod descriptors;
pub mod discovery;
pub mod doctor;
pub mod drain;
pub mod formats;
pub mod grpc_timeout;
pub mod health;
pub mod limit;
pub mod lint;
pub mod listener;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod middleware;
pub mod mirror;
pub mod model;
pub mod networks;
pub mod panics;
pub mod pem;
pub mod policy;
pub mod privileges;
pub mod probe;
pub mod proxy;
pub mod pulse;
pub mod recent;
pub mod register;
pub mod registry;
pub mod retry;
pub mod route;
pub mod single;
pub mod state_file;
pub mod telemetry;
pub mod tls;
pub mod view;
pub mod wards;
pub mod watch_file;
pub mod worker;
