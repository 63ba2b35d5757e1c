//! `dubbo-interface`: dubbo-go's interface-level registration, which is only read.
//!
//! Key `/dubbo/<interface>/providers/<URL, escaped>`, value empty. Beside `providers` there are
//! `consumers`, `configurators` and `routers`, and permanent keys for each folder: none of them is an
//! instance. `tri://` and `grpc://` can be called; `dubbo://` is no HTTP/2.

use crate::model::{Record, ServiceName};

use super::{
    Format, MAX_URL_KEY, Place, Places, Reading, RecordKey, RejectReason,
    host::{Url, unescape},
    labels, place,
};

#[derive(Debug)]
pub(super) struct DubboInterface;

impl Format for DubboInterface {
    fn name(&self) -> &'static str {
        "dubbo-interface"
    }

    fn default_root(&self) -> &'static str {
        "/dubbo"
    }

    fn max_key(&self) -> usize {
        MAX_URL_KEY
    }

    fn prefix(&self, root: &str, service: &ServiceName) -> Option<String> {
        place::one_segment(root, service).map(|interface| interface + "providers/")
    }

    fn places<'a>(&self, path: &'a str) -> Places<'a> {
        match place::segments(path)[..] {
            [interface, "providers", url] => Place::new(interface, url).into_iter().collect(),
            _ => Places::new(),
        }
    }

    fn decode(&self, key: &RecordKey<'_>, _value: &str) -> Result<Reading, RejectReason> {
        let text = unescape(key.instance);
        let url = Url::parse(&text).ok_or(RejectReason::KeyNotUrl)?;
        if !["tri", "grpc"].contains(&url.scheme) {
            return Err(RejectReason::NotGrpc(format!("it speaks {}", url.scheme)));
        }
        let mut record = Record::new(url.authority.parse()?, self.name());
        for (key, value) in url.pairs() {
            labels::add(&mut record, &key, &value);
        }
        Ok(record.into())
    }
}

/// Whether a key is one of these, told by how it ends.
pub(super) fn is_provider(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    path.contains("/providers/") && unescape(last).contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{left_out, read_at, services_of};
    use crate::formats::{Layout, MAX_KEY};

    fn read(url: &str) -> Result<Reading, RejectReason> {
        read_at("dubbo-interface", "org.User", &format!("org.User/providers/{url}"), "")
    }

    #[test]
    fn the_url_in_the_key_is_the_record() {
        let url = "tri%3A%2F%2F10.0.0.1%3A20000%2Forg.User%3Fgroup%3Dg1%26methods%3DA%2CB%26version%3D2.0\
                   %26weight%3D0";
        let record = read(url).unwrap().records.remove(0);
        assert_eq!((record.address.as_str(), &*record.id), ("10.0.0.1:20000", "10.0.0.1:20000"));
        assert_eq!((&*record.version, record.weight), ("2.0", 0));
        assert_eq!((&*record.metadata["group"], &*record.metadata["methods"]), ("g1", "A,B"));
        assert_eq!(read("grpc%3A%2F%2F10.0.0.1%3A1%2Fa").unwrap().records.len(), 1);
        let dubbo = left_out(read("dubbo%3A%2F%2F10.0.0.1%3A20880%2Forg.User"));
        assert_eq!(dubbo, "not an endpoint for gRPC: it speaks dubbo");
        assert_eq!(read("nonsense"), Err(RejectReason::KeyNotUrl));
    }

    #[test]
    fn other_folders_and_markers_are_no_instances() {
        for path in ["org.User", "org.User/providers", "org.User/consumers/tri%3A%2F%2Fa%3A1"] {
            assert!(services_of("dubbo-interface", path).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_long_url_is_read_up_to_a_limit() {
        let long = |bytes: usize| format!("tri%3A%2F%2F10.0.0.1%3A1%3Fm%3D{}", "m".repeat(bytes));
        assert_eq!(read(&long(2 * MAX_KEY)).unwrap().records.len(), 1);
        assert!(matches!(read(&long(MAX_URL_KEY)), Err(RejectReason::KeyTooLong(..))));
        let key = format!("/dubbo/org.User/providers/{}", long(2 * MAX_KEY));
        assert_eq!(crate::formats::key_text(key.as_bytes()), key, "told from others like it");
        assert!(Layout::new("dubbo-interface", "").is_some());
    }
}
