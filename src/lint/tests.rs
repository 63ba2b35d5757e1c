//! Each rule finds what it is for, and nothing in a registry that is well.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::formats::Layout;
use crate::registry::{book::Scope, etcd::Kv};

/// Granted 60 s, 45 s left.
const LEASE: i64 = 7;

/// What is found among these keys: key, value, lease.
fn facts(keys: &[(&str, &str, i64)]) -> Facts {
    let scope = Scope::whole(Layout::new("auto", "").unwrap());
    let entry = |(key, value, lease): &(&str, &str, i64)| {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        scope.entry(Kv { key, value, created: 1, modified: 1, lease: *lease }).map(Arc::new)
    };
    let seconds = Duration::from_secs;
    let life = LeaseLife { granted: seconds(60), left: seconds(45) };
    Facts {
        entries: keys.iter().map(|key| entry(key).unwrap()).collect(),
        strays: Vec::new(),
        lives: LeaseId::of(LEASE).map(|id| (id, life)).into_iter().collect(),
        probes: HashMap::new(),
        networks: Networks::default(),
        now: UNIX_EPOCH + seconds(1_700_000_000),
    }
}

fn lived(granted: u64, left: u64) -> Facts {
    let mut facts = facts(&[("a/1", &naming("10.0.0.1:80", ""), LEASE)]);
    let seconds = Duration::from_secs;
    let life = LeaseLife { granted: seconds(granted), left: seconds(left) };
    facts.lives = LeaseId::of(LEASE).map(|id| (id, life)).into_iter().collect();
    facts
}

fn naming(address: &str, metadata: &str) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{{metadata}}}}}"#)
}

fn koala(service: &str, address: &str) -> String {
    let (ip, port) = address.split_once(':').unwrap();
    format!(r#"{{"name":"{service}","nodes":[{{"id":"","ip":"{ip}","port":{port},"weight":0}}]}}"#)
}

fn found(facts: &Facts) -> Vec<(&'static str, String)> {
    lint(facts).into_iter().map(|found| (found.rule.name, found.what)).collect()
}

fn names(facts: &Facts) -> Vec<&'static str> {
    lint(facts).iter().map(|found| found.rule.name).collect()
}

#[test]
fn nothing_is_found_in_a_registry_that_is_well() {
    let mut facts = facts(&[
        ("a/1", &naming("10.0.0.1:80", r#""weight":"3","timestamp":"1699999999""#), 0),
        ("a/2", &naming("10.0.0.2:80", r#""weight":"0""#), LEASE),
        ("b/1", "10.0.0.1:80", LEASE),
        ("c/10.0.0.1:80", &koala("c", "10.0.0.1:80"), LEASE),
    ]);
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        facts.probes.insert(address.parse().unwrap(), Ok(()));
    }
    assert_eq!(found(&facts), []);
}

#[test]
fn a_value_that_cannot_be_read_is_found_with_its_reason() {
    let facts = facts(&[("a/1", "nonsense", 0), ("a/2", &naming("10.0.0.2:80", ""), 0)]);
    assert_eq!(found(&facts), [("unreadable", "the value is of no known format".to_owned())]);
    assert_eq!(&*lint(&facts)[0].key.clone().unwrap(), "a/1");
}

#[test]
fn a_value_that_breaks_the_readers_of_a_whole_service_is_found_as_that() {
    let good = r#"{"id":"1","name":"a","endpoints":["grpc://10.0.0.1:80"]}"#;
    let facts = facts(&[("a/1", good, LEASE), ("a/2", "nonsense", LEASE)]);
    let what = "the value is of no known format; kratos clients see no endpoint at all";
    assert_eq!(found(&facts), [("unreadable", what.to_owned())]);
}

#[test]
fn a_key_without_a_lease_is_found_where_the_format_always_has_one() {
    let facts = facts(&[("a/1", "10.0.0.1:80", 0), ("b/1", &naming("10.0.0.2:80", ""), 0)]);
    assert_eq!(found(&facts), [("no_lease", "a go-zero record that no lease ends".to_owned())]);
}

#[test]
fn an_address_with_two_keys_and_an_id_with_two_addresses_are_found() {
    let twice = facts(&[("a/1", "10.0.0.1:80", LEASE), ("a/2", "10.0.0.1:80", LEASE)]);
    assert_eq!(found(&twice), [("duplicate_address", "a/1 and a/2".to_owned())]);
    let instance =
        |address: &str| format!(r#"{{"id":"1","name":"a","endpoints":["grpc://{address}"]}}"#);
    let shared = facts(&[
        ("a/1", &instance("10.0.0.1:80"), LEASE),
        ("a/2", &instance("10.0.0.2:80"), LEASE),
    ]);
    let what = "10.0.0.1:80 and 10.0.0.2:80 have the id \"1\"".to_owned();
    assert_eq!(found(&shared), [("duplicate_id", what)]);
}

#[test]
fn the_copy_of_a_mirror_is_no_duplicate() {
    let mirror = 0x7069_6c6c_0000_0001;
    let facts = facts(&[("a/1", "10.0.0.1:80", LEASE), ("a/2", "10.0.0.1:80", mirror)]);
    assert_eq!(found(&facts), []);
}

#[test]
fn an_address_that_every_host_has_is_found() {
    let facts = facts(&[("a/1", &naming("0.0.0.0:80", ""), 0), ("a/2", &naming("[::]:80", ""), 0)]);
    assert_eq!(names(&facts), ["wildcard_address", "wildcard_address"]);
}

#[test]
fn weights_that_are_all_zero_and_endpoints_that_are_all_forbidden_are_found() {
    let zero = |at: &str| naming(&format!("10.0.0.{at}:80"), r#""weight":"0""#);
    let drained = facts(&[("a/1", &zero("1"), 0), ("a/2", &zero("2"), 0)]);
    assert_eq!(found(&drained), [("all_weights_zero", "weight 0 in all 2 records".to_owned())]);
    let forbidden = facts(&[("a/1", &naming("10.0.0.1:80", r#""state":"forbidden""#), 0)]);
    assert_eq!(names(&forbidden), ["all_forbidden"]);
}

#[test]
fn a_record_from_the_future_is_found_in_whatever_unit_it_has() {
    // 1 700 000 000 s is now.
    for ahead in ["1700000120", "1700000120000", "1700000120000000", "1700000120000000000"] {
        let metadata = format!(r#""latest_timestamp":"{ahead}""#);
        let facts = facts(&[("a/1", &naming("10.0.0.1:80", &metadata), 0)]);
        let what = "its latest_timestamp is 2m ahead of the clock here".to_owned();
        assert_eq!(found(&facts), [("clock", what)], "{ahead}");
    }
    for fine in ["1700000030", "1600000000000", "0", "soon"] {
        let metadata = format!(r#""timestamp":"{fine}""#);
        assert_eq!(found(&facts(&[("a/1", &naming("10.0.0.1:80", &metadata), 0)])), [], "{fine}");
    }
}

#[test]
fn names_that_begin_with_another_are_found_where_readers_mix_them_up() {
    let koalas = facts(&[
        ("hello/10.0.0.1:80", &koala("hello", "10.0.0.1:80"), LEASE),
        ("hello2/10.0.0.2:80", &koala("hello2", "10.0.0.2:80"), LEASE),
        ("hello/eu/10.0.0.3:80", &koala("hello/eu", "10.0.0.3:80"), LEASE),
    ]);
    assert_eq!(
        found(&koalas),
        [
            ("prefix_collision", "koala shows hello2 under it".to_owned()),
            ("nested_service", "koala shows hello/eu under it".to_owned()),
        ]
    );
    // Only old versions of etcd's resolver do: no more than a note.
    let naming = facts(&[
        ("hello/1", &naming("10.0.0.1:80", ""), 0),
        ("hello2/1", &naming("10.0.0.2:80", ""), 0),
    ]);
    let finding = &lint(&naming)[0];
    assert_eq!((finding.rule.name, finding.severity), ("prefix_collision", Severity::Note));
    // go-zero's lists end in a slash.
    let zeros = facts(&[("hello/1", "10.0.0.1:80", LEASE), ("hello2/1", "10.0.0.2:80", LEASE)]);
    assert_eq!(found(&zeros), []);
}

#[test]
fn leases_that_are_odd_are_found() {
    assert_eq!(names(&lived(60, 70)), ["lease_over_granted"]);
    assert_eq!(names(&lived(60, 61)), [""; 0]);
    assert_eq!(names(&lived(3, 2)), ["lease_short"]);
    assert_eq!(names(&lived(7200, 100)), ["lease_long"]);
    assert_eq!(names(&lived(60, 19)), ["lease_not_kept"]);
    assert_eq!(found(&lived(60, 70))[0].1, "lease 0000000000000007 has 70 s of 60 s left");
}

#[test]
fn a_lease_with_very_many_keys_is_found_unless_it_is_a_mirrors() {
    let many = |lease| {
        let value = |n: usize| format!("10.0.{}.{}:80", n / 250, n % 250);
        let keys: Vec<_> = (0..1001).map(|n| (format!("s{n:04}/1"), value(n))).collect();
        let keys: Vec<_> = keys.iter().map(|(key, value)| (&**key, &**value, lease)).collect();
        names(&facts(&keys))
    };
    assert_eq!(many(LEASE), ["lease_shared"]);
    assert_eq!(many(0x7069_6c6c_0000_0001), [""; 0]);
}

#[test]
fn an_endpoint_is_found_by_how_it_fails_once_for_each_service() {
    let keys = [
        ("a/1", naming("10.0.0.1:80", "")),
        ("a/2", naming("10.0.0.2:80", "")),
        ("a/3", naming("10.0.0.3:80", "")),
        ("b/1", naming("10.0.0.1:80", "")),
    ];
    let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, &**value, 0)).collect();
    let mut facts = facts(&keys);
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    for (address, error) in [
        ("10.0.0.1:80", ProbeError::Unreachable(refused)),
        ("10.0.0.2:80", ProbeError::NoSettings(Duration::from_secs(1))),
        ("10.0.0.3:80", ProbeError::Http1),
    ] {
        facts.probes.insert(address.parse().unwrap(), Err(error));
    }
    let found: Vec<_> = lint(&facts)
        .iter()
        .map(|found| format!("{} {}", found.rule.name, found.key.as_ref().unwrap()))
        .collect();
    assert_eq!(found, ["unreachable a/1", "unreachable b/1", "silent a/2", "not_http2 a/3"]);
}

#[test]
fn several_formats_and_keys_of_no_service_are_worth_a_note() {
    let mut facts = facts(&[("a/1", &naming("10.0.0.1:80", ""), 0), ("a/2", "10.0.0.2:80", LEASE)]);
    facts.strays = vec!["loose".into(), "other".into()];
    assert_eq!(
        found(&facts),
        [
            ("mixed_formats", "etcd-naming, go-zero".to_owned()),
            ("stray_keys", "2 of them, such as loose".to_owned()),
        ]
    );
    assert!(lint(&facts).iter().all(|found| found.severity == Severity::Note));
}

#[test]
fn rules_have_names_of_their_own_and_stand_in_the_order_of_their_severity() {
    let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    assert!(RULES.is_sorted_by_key(|rule| rule.severity));
}
