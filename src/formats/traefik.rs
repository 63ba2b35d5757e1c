//! `traefik`: the services of traefik's key-value provider, which are only read.
//!
//! Keys `traefik/http/services/<service>/loadbalancer/servers/<n>/url` with a URL, and beside it
//! `../weight`; the words of a key count without regard to case. The instance is the server `<n>`, and
//! its weight is 1 where there is none. `h2c://` and `https://` can be called; `http://` is HTTP/1.1.

use crate::model::{Record, ServiceName};

use super::{
    Format, Place, Places, Reading, RecordKey, RejectReason,
    host::{self, Url},
    place,
    weight::number_or,
};

#[derive(Debug)]
pub(super) struct Traefik;

const DEFAULT_WEIGHT: u32 = 1;
/// Kinds of services that are made of others.
const PARTED: [&str; 3] = ["weighted", "mirroring", "failover"];

impl Format for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    fn default_root(&self) -> &'static str {
        "traefik"
    }

    /// Since a service's keys may be spelled in many ways, which one prefix cannot cover.
    fn is_whole(&self) -> bool {
        true
    }

    fn prefix(&self, root: &str, _service: &ServiceName) -> Option<String> {
        Some(root.to_owned())
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        let words = path.to_ascii_lowercase();
        let (words, segments) = (place::segments(&words), place::segments(path));
        let place = match words[..] {
            [
                "http" | "tcp" | "udp",
                "services",
                _,
                "loadbalancer",
                "servers",
                _,
                "url" | "address" | "weight",
            ] => Place::new(segments[2], segments[5]),
            ["http", "services", _, kind, ..] if PARTED.contains(&kind) => {
                Place::new(segments[2], segments[3])
            }
            _ => None,
        };
        place.into_iter().collect()
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        let id = key.instance.to_ascii_lowercase();
        let protocol = key.path.split('/').next().unwrap_or_default().to_ascii_lowercase();
        if protocol != "http" {
            return Err(RejectReason::NotGrpc(format!("a {protocol} service of traefik")));
        }
        if PARTED.contains(&&*id) {
            let reason = format!("a {id} service of traefik, name those behind it");
            return Err(RejectReason::NotGrpc(reason));
        }
        if key.path.to_ascii_lowercase().ends_with("/weight") {
            let weight = number_or(DEFAULT_WEIGHT, Some(&value.into()));
            return Ok(Reading { weight_of: Some((id, weight)), ..Reading::default() });
        }
        let url = Url::parse(value).ok_or(RejectReason::Unknown)?;
        let (port, tls) = match &*url.scheme.to_ascii_lowercase() {
            "h2c" => (80, false),
            "https" => (443, true),
            scheme => return Err(RejectReason::NotGrpc(format!("it speaks {scheme}"))),
        };
        let address = host::with_default_port(url.authority, port)?;
        let record =
            Record { id, tls, weight: DEFAULT_WEIGHT, ..Record::new(address, self.name()) };
        Ok(record.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{left_out, read_at, services_of};

    fn read(path: &str, value: &str) -> Result<Reading, RejectReason> {
        read_at("traefik", "pay", path, value)
    }

    const SERVER: &str = "http/services/pay/loadbalancer/servers/0";

    #[test]
    fn a_server_is_an_instance_and_its_weight_another_word_on_it() {
        for (url, address, tls) in [
            ("h2c://10.0.0.1:90", "10.0.0.1:90", false),
            ("h2c://a.local/", "a.local:80", false),
            ("https://[::1]", "[::1]:443", true),
        ] {
            let record = read(&format!("{SERVER}/url"), url).unwrap().records.remove(0);
            assert_eq!((record.address.as_str(), record.tls), (address, tls));
            assert_eq!((&*record.id, record.weight), ("0", 1));
        }
        let weight = |value| read(&format!("{SERVER}/weight"), value).unwrap().weight_of.unwrap();
        assert_eq!(weight("3"), ("0".to_owned(), 3));
        assert_eq!(weight("0"), ("0".to_owned(), 0));
        assert_eq!(weight("x"), ("0".to_owned(), 1));
    }

    #[test]
    fn the_words_of_a_key_count_without_regard_to_case_but_not_the_name() {
        assert_eq!(services_of("traefik", "HTTP/Services/Pay/loadBalancer/Servers/A/URL"), ["Pay"]);
        let weight = read("http/services/pay/LoadBalancer/servers/A/Weight", "3").unwrap();
        assert_eq!(weight.weight_of, Some(("a".to_owned(), 3)));
        for path in ["http/routers/pay/rule", "http/services/pay/loadbalancer/passhostheader"] {
            assert!(services_of("traefik", path).is_empty(), "{path}");
        }
    }

    #[test]
    fn what_is_not_http_2_is_left_out() {
        for (path, value, what) in [
            (&*format!("{SERVER}/url"), "http://10.0.0.1:80", "it speaks http"),
            ("tcp/services/pay/loadbalancer/servers/0/address", "a:1", "a tcp service of traefik"),
            ("http/services/pay/weighted/services/0/name", "b", "a weighted service of traefik"),
        ] {
            assert!(left_out(read(path, value)).contains(what), "{path}");
        }
        assert_eq!(read(&format!("{SERVER}/url"), "10.0.0.1:80"), Err(RejectReason::Unknown));
    }
}
