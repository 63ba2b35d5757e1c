//! TLS towards applications and towards endpoints: who is who, and what a handshake came to.
//!
//! The [`Keeper`] makes all of it, and reads files again when they change. A [`Server`] belongs to a listener,
//! [`Terms`] to everybody whose policy says the same of TLS. What a connection began with it keeps. HTTP/2 is agreed on by ALPN, or there is no connection; but for the admin address,
//! which has a [`Server`] of its own that speaks HTTP/1.1, and for an [`Asker`] of it.

mod asker;
mod client;
mod failure;
mod keeper;
mod server;
mod sessions;
mod stream;
mod turns;
mod verify;

use rustls::{SupportedProtocolVersion, version::TLS13};

use crate::config::TlsVersion;

pub use asker::Asker;
pub use client::{Clients, Terms};
pub use failure::{Failure, Why};
pub use keeper::Keeper;
pub use server::{Secured, Server};
pub use stream::Stream;

/// HTTP/2, in the words of ALPN (RFC 7301),
const H2: &[u8] = b"h2";
/// and HTTP/1.1, which operators speak.
const HTTP1: &[u8] = b"http/1.1";

/// Versions that are spoken.
fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static LATEST: &[&SupportedProtocolVersion] = &[&TLS13];
    match oldest {
        TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        TlsVersion::V1_3 => LATEST,
    }
}
