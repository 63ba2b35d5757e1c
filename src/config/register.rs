//! Settings of a registration: what is put into a registry, and when it counts as healthy.
//!
//! [`crate::register`] acts on these; [`crate::health`] runs the probes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::settings::Node;
use crate::formats::FORMATS;
use crate::model::{Address, Record, ServiceName};

/// One instance of a service, to be put into the registry of an etcd source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Name in reports, metrics and `PUT /registrations/NAME`; unique. Default: the service.
    pub name: Arc<str>,
    /// Service that it is an instance of.
    pub service: ServiceName,
    /// What others dial.
    pub address: Address,
    /// Name of a source of kind etcd.
    pub source: Arc<str>,
    /// Record format that it is written in; none for that of the source.
    pub format: Option<&'static str>,
    /// Instance; empty for [`Node::id`].
    pub id: String,
    /// What may change while it is registered; an empty zone stands for [`Node::zone`].
    pub details: Details,
    /// Time that it outlives this process and its connection. At least 2 s. Default 15 s.
    pub ttl: Duration,
    /// When it is registered.
    pub health: HealthCheck,
}

/// What a registration says of its instance, and may say otherwise at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Share of traffic, 0 to 1000000. Default 100.
    pub weight: u32,
    /// Version of the software; empty when unknown.
    pub version: String,
    /// Failure domain; empty when unknown.
    pub zone: String,
    /// Everything else.
    pub metadata: BTreeMap<String, String>,
}

impl Default for Details {
    fn default() -> Self {
        Self {
            weight: Record::DEFAULT_WEIGHT,
            version: String::new(),
            zone: String::new(),
            metadata: BTreeMap::new(),
        }
    }
}

impl Register {
    /// Shortest [`Self::ttl`]: etcd raises what is below it.
    pub const MIN_TTL: Duration = Duration::from_secs(2);
    /// [`Self::ttl`] of a registration that gives none.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(15);
    /// Largest [`Details::weight`].
    pub const MAX_WEIGHT: u32 = 1_000_000;

    /// What is said of the instance, of a proxy that speaks for `node`.
    pub fn details(&self, node: &Node) -> Details {
        let mut details = self.details.clone();
        if details.zone.is_empty() {
            details.zone.clone_from(&node.zone);
        }
        details
    }

    /// The record to write, with `details`.
    pub fn record(&self, node: &Node, format: &str, details: Details) -> Record {
        let format = FORMATS.iter().find(|known| **known == format).copied().unwrap_or_default();
        let Details { weight, version, zone, metadata } = details;
        let id = if self.id.is_empty() { &node.id } else { &self.id };
        let record = Record::new(self.address.clone(), format);
        Record { id: id.clone(), weight, version, zone, metadata, ..record }
    }
}

/// How often something is asked whether it is well, and how many answers in a row count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// How it is asked.
    pub probe: Probe,
    /// Between two probes; 10 % more or less. Default 5 s.
    pub interval: Duration,
    /// Limit of one probe. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that make it healthy. Default 1.
    pub healthy_after: u32,
    /// Failures in a row that make it unhealthy. Default 3.
    pub unhealthy_after: u32,
}

impl HealthCheck {
    /// The defaults with this probe.
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
        }
    }
}

/// How something is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Not at all: it is.
    None,
    /// `grpc.health.v1.Health/Check` says SERVING.
    Grpc {
        /// Whom to ask.
        address: Address,
        /// Whom to ask about; empty for the server as a whole.
        service: String,
    },
    /// It takes a TCP connection.
    Tcp(Address),
    /// GET of this `http` URL answers 2xx.
    Http(http::Uri),
    /// This command of `/bin/sh` exits with 0.
    Exec(String),
}
