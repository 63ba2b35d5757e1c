//! One registration, put together from the configuration: what is written, where, and when.

use std::{sync::Arc, time::Duration};

use crate::config::{
    Details, EmptyPolicy, EtcdSource, HealthCheck, Mode, Register, Settings, SourceKind,
};
use crate::formats::{EncodeError, Layout, Written};
use crate::model::{Record, ServiceName};

/// All of a registration but its [`Details`]. Two that are equal are the same registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) name: Arc<str>,
    pub(super) service: ServiceName,
    /// Name of the source.
    pub(super) source: Arc<str>,
    /// The cluster and the prefix.
    pub(super) etcd: EtcdSource,
    pub(super) format: String,
    /// The record, without details.
    instance: Record,
    pub(super) ttl: Duration,
    pub(super) health: HealthCheck,
}

impl Spec {
    /// What `register` comes to, with its details. None for one without a source, which a check of
    /// the configuration does not let pass.
    pub(super) fn new(register: &Register, settings: &Settings) -> Option<(Self, Details)> {
        let SourceKind::Etcd(etcd) = &settings.source(&register.source)?.kind else { return None };
        let format = register.format.unwrap_or(&etcd.format).to_owned();
        let spec = Self {
            name: Arc::clone(&register.name),
            service: register.service.clone(),
            source: Arc::clone(&register.source),
            instance: register.record(&settings.node, &format, Details::default()),
            format,
            // What only matters to discovery makes no other registration.
            etcd: EtcdSource {
                mode: Mode::default(),
                empty: EmptyPolicy::default(),
                ..etcd.clone()
            },
            ttl: register.ttl,
            health: register.health.clone(),
        };
        Some((spec, register.details(&settings.node)))
    }

    /// What to put under `lease`.
    ///
    /// # Errors
    /// [`EncodeError`] when the format cannot say this.
    pub(super) fn written(&self, details: &Details, lease: i64) -> Result<Written, EncodeError> {
        let layout = self.layout().ok_or(EncodeError::ReadOnly("auto"))?;
        let Details { weight, version, zone, metadata } = details.clone();
        let record = Record { weight, version, zone, metadata, ..self.instance.clone() };
        layout.encode(&self.service, &record, lease)
    }

    /// The address in `value`, which somebody put under `key`; none where there is none to read. Of
    /// several the one that is ours counts.
    pub(super) fn address_in(&self, key: &[u8], value: &[u8]) -> Option<String> {
        let records = self.layout()?.read_for(&self.service, key, value)?.ok()?.records;
        let ours = records.iter().find(|record| record.address == self.instance.address);
        ours.or_else(|| records.first()).map(|record| record.address.to_string())
    }

    /// What others dial.
    pub(super) fn address(&self) -> &str {
        self.instance.address.as_str()
    }

    fn layout(&self) -> Option<Layout> {
        Layout::new(&self.format, &self.etcd.prefix).filter(|_| self.format != "auto")
    }
}
