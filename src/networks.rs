//! Which addresses a source of endpoints may name.
//!
//! A registry is written by many, and whoever can write a record can have this proxy dial what the
//! record says. [`crate::discovery`] asks here for each record that names an address, and
//! [`crate::connect`] for each address that a host name stands for. What nobody means by an endpoint is
//! refused unless the source allows it in so many words, and an address at which this proxy itself
//! listens always: a call sent there would come back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What a source may name. The default is what an empty configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Where endpoints may be; empty for anywhere.
    pub allow: Vec<IpNet>,
    /// Where none may be, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// Where this proxy listens.
    own: Arc<[SocketAddr]>,
}

/// Why an address is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A network of `deny` has it.
    #[error("{0} is in {1}, which the source denies")]
    Denied(IpAddr, IpNet),
    /// No network of `allow` has it.
    #[error("{0} is in no network that the source allows")]
    NotAllowed(IpAddr),
    /// It is of a kind that has to be allowed in so many words.
    #[error("{0} is {1}; a source may name it only where it allows {2}, or a part of that")]
    Reserved(IpAddr, &'static str, IpNet),
    /// This proxy listens there.
    #[error("this proxy itself listens at {0}: a call would come back to it")]
    Own(SocketAddr),
}

/// What nobody means by an endpoint. A network within another one has to be allowed by itself.
const RESERVED: [(IpNet, &str); 12] = [
    (v4([0, 0, 0, 0], 8), "an unspecified address, which is this host"),
    (v6([0; 8], 128), "an unspecified address, which is this host"),
    (v4([224, 0, 0, 0], 4), "a multicast address"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "a multicast address"),
    (v4([255, 255, 255, 255], 32), "the broadcast address"),
    (v4([169, 254, 169, 254], 32), METADATA),
    // Others of Amazon, Alibaba, Azure and Google.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), METADATA),
    (v4([100, 100, 100, 200], 32), METADATA),
    (v4([168, 63, 129, 16], 32), METADATA),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), METADATA),
    (v4([169, 254, 0, 0], 16), "a link-local address"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "a link-local address"),
];
const METADATA: &str = "where a cloud keeps the credentials of its machines";

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], bits: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits))
}

impl Networks {
    /// Allows and denies these, of a proxy that listens nowhere.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny, own: Arc::default() }
    }

    /// The same for a proxy that listens at `own`. An address there that stands for all of this host
    /// does so here, too.
    pub fn listening_at(&self, own: &Arc<[SocketAddr]>) -> Self {
        Self { own: Arc::clone(own), ..self.clone() }
    }

    /// Whether an endpoint may be at `address`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        // `::ffff:a.b.c.d` is the IPv4 address by another name.
        let ip = address.ip().to_canonical();
        if let Some(net) = self.deny.iter().find(|net| net.contains(&ip)) {
            return Err(Refused::Denied(ip, *net));
        }
        let allowing = || self.allow.iter().filter(|net| net.contains(&ip));
        if !self.allow.is_empty() && allowing().next().is_none() {
            return Err(Refused::NotAllowed(ip));
        }
        for (reserved, what) in RESERVED.iter().filter(|(net, _)| net.contains(&ip)) {
            if !allowing().any(|net| reserved.contains(net)) {
                return Err(Refused::Reserved(ip, what, *reserved));
            }
        }
        let address = SocketAddr::new(ip, address.port());
        match self.own.iter().any(|own| is_at(*own, address)) {
            true => Err(Refused::Own(address)),
            false => Ok(()),
        }
    }
}

/// Whether whoever dials `address` reaches who listens at `own`.
fn is_at(own: SocketAddr, address: SocketAddr) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), address.ip());
    own.port() == address.port() && (own_ip == ip || (own_ip.is_unspecified() && is_local(ip)))
}

/// Whether this host has the address now: then a socket can be bound to it. Asked for endpoints on the
/// port of a listener only.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn check(networks: &Networks, ip: &str) -> Result<(), Refused> {
        networks.check(SocketAddr::new(ip.parse().unwrap(), 9000))
    }

    #[test]
    fn endpoints_are_anywhere_but_where_nobody_means_one() {
        let any = Networks::default();
        for good in ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", "fd00::1"] {
            assert_eq!(check(&any, good), Ok(()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.1.1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(matches!(check(&any, bad), Err(Refused::Reserved(..))), "{bad}");
        }
    }

    #[test]
    fn what_is_reserved_is_allowed_by_name_and_not_by_allowing_everything() {
        let all = Networks::new(nets(&["0.0.0.0/0", "::/0"]), vec![]);
        assert!(check(&all, "169.254.1.1").is_err());
        let some = Networks::new(nets(&["0.0.0.0/0", "169.254.0.0/16"]), vec![]);
        assert_eq!(check(&some, "169.254.1.1"), Ok(()));
        assert!(check(&some, "169.254.169.254").is_err(), "it has to be allowed by itself");
        let metadata = Networks::new(nets(&["169.254.0.0/16", "169.254.169.254/32"]), vec![]);
        assert_eq!(check(&metadata, "169.254.169.254"), Ok(()));
    }

    #[test]
    fn what_is_denied_is_refused_even_where_it_is_allowed() {
        let networks = Networks::new(nets(&["10.0.0.0/8"]), nets(&["10.9.0.0/16"]));
        assert_eq!(check(&networks, "10.1.0.1"), Ok(()));
        assert!(matches!(check(&networks, "10.9.0.1"), Err(Refused::Denied(..))));
        assert!(matches!(check(&networks, "::ffff:10.9.0.1"), Err(Refused::Denied(..))));
        assert!(matches!(check(&networks, "192.0.2.1"), Err(Refused::NotAllowed(_))));
        assert!(matches!(check(&networks, "::1"), Err(Refused::NotAllowed(_))));
    }

    #[test]
    fn where_this_proxy_listens_is_no_endpoint() {
        let own: Arc<[SocketAddr]> =
            ["127.0.0.1:4140", "0.0.0.0:8443", "[::]:8444"].map(|a| a.parse().unwrap()).into();
        let networks = Networks::default().listening_at(&own);
        let check = |address: &str| networks.check(address.parse().unwrap());
        for bad in ["127.0.0.1:4140", "[::ffff:127.0.0.1]:4140", "127.0.0.2:8443", "[::1]:8444"] {
            assert!(matches!(check(bad), Err(Refused::Own(_))), "{bad}");
        }
        for good in ["127.0.0.1:4141", "127.0.0.2:4140", "192.0.2.1:8443", "192.0.2.1:4140"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
