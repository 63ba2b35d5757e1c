//! Networks as the file has them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::value::Text;

/// A network, or a single address. What is within it counts, so that host bits may stand there.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Net(pub(in crate::config) IpNet);

impl Text for Net {
    fn allowed() -> String {
        "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or an address".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse::<IpNet>().ok().or_else(address) {
            Some(net) => Ok(Self(net.trunc())),
            None => Self::refuse(&format!("{text:?} is no network")),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}
