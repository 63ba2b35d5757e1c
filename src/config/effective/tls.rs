//! TLS, written back.

use std::path::PathBuf;

use crate::config::{
    raw::{RawListenerTls, RawTls},
    tls::{AskedName, EndpointTls, ListenerTls},
};

impl From<&ListenerTls> for RawListenerTls {
    fn from(tls: &ListenerTls) -> Self {
        Self {
            cert: tls.cert.clone().into(),
            key: tls.key.clone().into(),
            client_ca: tls.client_ca.clone().unwrap_or_default().into(),
            allow: tls.allow.clone().into(),
            min_version: tls.min_version.into(),
        }
    }
}

impl From<&EndpointTls> for RawTls {
    fn from(tls: &EndpointTls) -> Self {
        let (cert, key): (PathBuf, PathBuf) = tls.identity.clone().unwrap_or_default();
        Self {
            mode: tls.mode.into(),
            ca: tls.ca.clone().unwrap_or_default().into(),
            cert: cert.into(),
            key: key.into(),
            server_name: AskedName(tls.server_name.clone()).into(),
            verify: tls.verify.clone().into(),
            min_version: tls.min_version.into(),
        }
    }
}
