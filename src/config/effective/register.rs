//! Registrations, written back.

use crate::config::{
    raw::{RawRegister, RawRegisterHealth},
    register::{Details, HealthCheck, Probe, Register},
    text::{Format, HealthKind, PlainText, Positive, SourceName, Ttl},
    value::{Count, Metadata},
};

impl From<&Register> for RawRegister {
    fn from(register: &Register) -> Self {
        let text = |text: &str| PlainText(text.to_owned()).into();
        let format = register.format.map(|format| Format(format.to_owned()));
        let Details { weight, version, zone, metadata } = &register.details;
        // A name of a service may have letters that could not be written here.
        let is_default = *register.name == *register.service.as_str();
        let name = (!is_default).then(|| SourceName(register.name.to_string()));
        Self {
            name: name.map_or_else(Default::default, Into::into),
            service: register.service.clone().into(),
            address: register.address.clone().into(),
            source: SourceName(register.source.to_string()).into(),
            format: format.map_or_else(Default::default, Into::into),
            id: text(&register.id),
            weight: Count(*weight).into(),
            version: text(version),
            zone: text(zone),
            metadata: Metadata(metadata.clone()).into(),
            ttl: Ttl(register.ttl).into(),
            health: RawRegisterHealth::from(&register.health).into(),
        }
    }
}

impl From<&HealthCheck> for RawRegisterHealth {
    fn from(check: &HealthCheck) -> Self {
        let (kind, target) = match &check.probe {
            Probe::None => (HealthKind::None, String::new()),
            Probe::Grpc { address, service } if service.is_empty() => {
                (HealthKind::Grpc, address.to_string())
            }
            Probe::Grpc { address, service } => (HealthKind::Grpc, format!("{address}/{service}")),
            Probe::Tcp(address) => (HealthKind::Tcp, address.to_string()),
            Probe::Http(url) => (HealthKind::Http, url.to_string()),
            Probe::Exec(command) => (HealthKind::Exec, command.clone()),
        };
        Self {
            kind: kind.into(),
            target: PlainText(target).into(),
            interval: Positive(check.interval).into(),
            timeout: Positive(check.timeout).into(),
            healthy_after: Count(check.healthy_after).into(),
            unhealthy_after: Count(check.unhealthy_after).into(),
        }
    }
}
