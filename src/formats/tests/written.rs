//! What is written: byte for byte as the frameworks do, and read back as it was meant.

use proptest::prelude::*;

use super::super::*;

const LEASE: i64 = 7_587_866_389_138_268_449;

const WRITABLE: &[&str] = &[
    "etcd-naming",
    "grpc-wrapper",
    "koala",
    "go-zero",
    "kratos",
    "kitex",
    "hertz",
    "go-micro",
    "goframe",
    "dubbo-app",
    "skydns",
];

fn record(address: &str) -> Record {
    Record { id: "host-1".to_owned(), ..Record::new(address.parse().unwrap(), "") }
}

fn write(format: &str, root: &str, service: &str, record: &Record) -> Result<Written, String> {
    let layout = Layout::new(format, root).unwrap();
    let written = layout.encode(&service.parse().unwrap(), record, LEASE);
    written.map_err(|error| error.to_string())
}

#[test]
fn nothing_is_written_that_would_not_be_read() {
    let with_id = |length| {
        let record = Record { id: "x".repeat(length), ..record("10.0.0.1:80") };
        write("kratos", "", "a", &record)
    };
    assert!(with_id(100).is_ok());
    let refused = with_id(MAX_KEY).unwrap_err();
    let why = "format kratos cannot hold what would not be read again: ";
    assert!(refused.starts_with(why), "{refused}");
}

#[test]
fn a_plain_record_is_written_as_the_framework_writes_it() {
    for (format, root, service, key, value) in [
        (
            "etcd-naming",
            "",
            "orders",
            "orders/host-1",
            r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}"#,
        ),
        (
            "koala",
            "/ibinarytree/koala/service/",
            "hello",
            "/ibinarytree/koala/service/hello/10.0.0.1:9000",
            r#"{"name":"hello","nodes":[{"id":"host-1","ip":"10.0.0.1","port":9000,"weight":100}]}"#,
        ),
        ("go-zero", "", "user.rpc", "user.rpc/7587866389138268449", "10.0.0.1:9000"),
        (
            "kratos",
            "/microservices",
            "helloworld",
            "/microservices/helloworld/host-1",
            r#"{"id":"host-1","name":"helloworld","version":"","metadata":null,"endpoints":["grpc://10.0.0.1:9000"]}"#,
        ),
        (
            "skydns",
            "/skydns",
            "user.svc.local",
            "/skydns/local/svc/user/host-1",
            r#"{"host":"10.0.0.1","port":9000,"weight":100}"#,
        ),
        (
            "grpc-wrapper",
            "",
            "orders",
            "orders/host-1",
            r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}"#,
        ),
        (
            "kitex",
            "",
            "Hello",
            "kitex/registry-etcd/Hello/10.0.0.1:9000",
            r#"{"network":"tcp","address":"10.0.0.1:9000","weight":10,"tags":null}"#,
        ),
        (
            "hertz",
            "",
            "Hello",
            "hertz/registry-etcd/Hello/10.0.0.1:9000",
            r#"{"network":"tcp","address":"10.0.0.1:9000","weight":10,"tags":null}"#,
        ),
        (
            "go-micro",
            "",
            "com~acme~user",
            "/micro/registry/com-acme-user/host-1",
            r#"{"name":"com/acme/user","version":"latest","metadata":null,"endpoints":null,"nodes":[{"id":"host-1","address":"10.0.0.1:9000","metadata":{"broker":"http","protocol":"grpc","registry":"etcd","server":"grpc","transport":"grpc"}}]}"#,
        ),
        (
            "goframe",
            "",
            "user",
            "/service/default/default/user/latest/10.0.0.1:9000",
            r#"{"protocol":"grpc"}"#,
        ),
        (
            "dubbo-app",
            "",
            "user-app",
            "/services/user-app/10.0.0.1:9000",
            concat!(
                r#"{"ID":"10.0.0.1:9000","ServiceName":"user-app","Host":"10.0.0.1","Port":9000,"#,
                r#""Weight":100,"Enable":true,"Healthy":true,"Metadata":{"#,
                r#""dubbo.endpoints":"[{\"port\":9000,\"protocol\":\"tri\"}]","#,
                r#""dubbo.metadata.storage-type":"local"},"ServiceMetadata":null,"#,
                r#""Address":"10.0.0.1:9000","GroupName":"","Tag":""}"#,
                "\n",
            ),
        ),
    ] {
        let written = write(format, root, service, &record("10.0.0.1:9000")).unwrap();
        assert_eq!((&*written.key, &*written.value), (key, value), "{format}");
    }
}

#[test]
fn everything_a_record_says_goes_where_the_framework_keeps_it() {
    let mut record = record("[fd00::7]:9000");
    (record.weight, record.version, record.zone) = (20, "v1&2".to_owned(), "az1".to_owned());
    record.metadata.insert("gpu".to_owned(), "<yes>".to_owned());
    let value = |format| write(format, "r", "a", &record).unwrap().value;
    assert_eq!(
        value("etcd-naming"),
        r#"{"Op":0,"Addr":"[fd00::7]:9000","Metadata":{"gpu":"\u003cyes\u003e","version":"v1\u00262","weight":"20","zone":"az1"}}"#
    );
    assert_eq!(value("go-zero"), "[fd00::7]:9000");
    record.tls = true;
    assert_eq!(
        write("kratos", "r", "a", &record).unwrap().value,
        r#"{"id":"host-1","name":"a","version":"v1\u00262","metadata":{"gpu":"\u003cyes\u003e","weight":"20","zone":"az1"},"endpoints":["grpcs://[fd00::7]:9000"]}"#
    );
    record.tls = false;
    assert_eq!(
        write("kitex", "r", "a", &record).unwrap().value,
        r#"{"network":"tcp","address":"[fd00::7]:9000","weight":20,"tags":{"gpu":"\u003cyes\u003e","version":"v1\u00262","zone":"az1"}}"#
    );
    let value = write("go-micro", "r", "a", &record).unwrap().value;
    assert!(value.starts_with(r#"{"name":"a","version":"v1\u00262","metadata":null"#), "{value}");
    assert!(value.contains(r#""gpu":"\u003cyes\u003e","protocol":"grpc""#), "{value}");
    assert!(value.contains(r#""weight":"20","zone":"az1"}}]}"#), "{value}");
    let record = Record { address: "db.local:9000".parse().unwrap(), ..record };
    let written = write("goframe", "r", "a", &record).unwrap();
    assert_eq!(written.key, "r/a/v1&2/db.local:9000");
    assert_eq!(
        written.value,
        r#"{"gpu":"\u003cyes\u003e","protocol":"grpc","weight":"20","zone":"az1"}"#
    );
}

#[test]
fn what_a_format_cannot_say_is_refused_by_name() {
    let plain = record("10.0.0.1:9000");
    let drained = Record { weight: 0, ..plain.clone() };
    let tls = Record { tls: true, ..plain.clone() };
    let mut forbidden = plain.clone();
    forbidden.metadata.insert("state".to_owned(), "forbidden".to_owned());
    let slash = Record { id: "a/b".to_owned(), ..plain.clone() };
    let mut http = plain.clone();
    http.metadata.insert("protocol".to_owned(), "http".to_owned());
    let versioned = Record { version: "a/b".to_owned(), ..plain };
    for (format, record, what) in [
        ("auto", &record("10.0.0.1:9000"), "format auto is only read"),
        ("go-zero", &drained, "weight 0"),
        ("go-zero", &tls, "TLS"),
        ("go-zero", &forbidden, "state=forbidden"),
        ("koala", &drained, "weight 0"),
        ("koala", &forbidden, "state=forbidden"),
        ("koala", &record("[::1]:80"), "an IPv6 address"),
        ("etcd-naming", &tls, "TLS"),
        ("etcd-naming", &slash, "id \"a/b\""),
        ("kratos", &slash, "id \"a/b\""),
        ("kitex", &drained, "weight 0"),
        ("kitex", &tls, "TLS"),
        ("goframe", &record("[::1]:80"), "an IPv6 address"),
        ("goframe", &tls, "TLS"),
        ("goframe", &versioned, "version \"a/b\""),
        ("goframe", &http, "protocol other than grpc"),
        ("go-micro", &http, "protocol other than grpc"),
        ("go-micro", &tls, "TLS"),
        ("dubbo-app", &drained, "weight 0"),
        ("dubbo-app", &record("[::1]:80"), "an IPv6 address"),
        ("dubbo-app", &tls, "TLS"),
        ("skydns", &drained, "weight 0"),
        ("skydns", &tls, "TLS"),
        ("mqant", &record("10.0.0.1:9000"), "format mqant is only read"),
    ] {
        let error = write(format, "", "a", record).unwrap_err();
        assert!(error.contains(what), "{format}: {error}");
    }
}

#[test]
fn names_that_a_framework_would_misread_are_refused() {
    let record = record("10.0.0.1:9000");
    for format in ["kitex", "hertz", "goframe", "dubbo-app"] {
        let error = write(format, "", "a~b", &record).unwrap_err();
        assert_eq!(error, format!("format {format} cannot hold a service named a~b"));
    }
    let error = write("kitex", "50%", "a", &record).unwrap_err();
    assert!(error.contains("a prefix with `%`"), "{error}");
}

#[test]
fn what_can_be_written_is_what_the_documentation_says() {
    let record = record("10.0.0.1:9000");
    let writable = FORMATS.iter().filter(|format| write(format, "", "a", &record).is_ok());
    assert_eq!(writable.copied().collect::<Vec<_>>(), WRITABLE);
}

/// What of `record` can be found in what is written of it.
fn kept(format: &'static str, mut record: Record) -> Record {
    record.format = format;
    let bare = Record::new(record.address.clone(), format);
    let (id, weight) = (record.id.clone(), record.weight);
    let latest = |version: String| if version.is_empty() { "latest".to_owned() } else { version };
    match format {
        "go-zero" => return Record { id: LEASE.to_string(), ..bare },
        "koala" => return Record { id, weight, ..bare },
        "goframe" => {
            record.version = latest(record.version);
            record.metadata.insert("protocol".to_owned(), "grpc".to_owned());
        }
        "go-micro" => {
            record.version = latest(record.version);
            let server = [("protocol", "grpc"), ("server", "grpc"), ("transport", "grpc")];
            for (key, value) in server.into_iter().chain([("broker", "http"), ("registry", "etcd")])
            {
                record.metadata.insert(key.to_owned(), value.to_owned());
            }
        }
        "dubbo-app" => {
            let (key, value) = ("dubbo.metadata.storage-type", "local");
            record.metadata.insert(key.to_owned(), value.to_owned());
        }
        "skydns" => {
            let id = crate::formats::skydns::label(&id);
            record.metadata.retain(|key, _| ["priority", "group", "text"].contains(&&**key));
            return Record { id, weight, metadata: record.metadata, ..bare };
        }
        "kitex" | "hertz" if weight == Record::DEFAULT_WEIGHT => record.weight = 10,
        _ => {}
    }
    // Named by their address.
    if ["kitex", "hertz", "goframe", "dubbo-app"].contains(&format) {
        record.id = bare.id;
    }
    record
}

prop_compose! {
    fn any_record()(
        address in prop_oneof![
            any::<std::net::SocketAddr>().prop_filter("no scope", |address| {
                !matches!(address, std::net::SocketAddr::V6(v6) if v6.scope_id() > 0 || v6.flowinfo() > 0)
            }).prop_map(|address| address.to_string()),
            "[a-z][a-z0-9_-]{0,9}(\\.[a-z]{1,5})?:[1-9][0-9]{0,3}".prop_map(String::from),
        ],
        id in "[a-zA-Z0-9@:._-]{1,20}",
        weight in prop_oneof![Just(100), 0..=1_000_000u32],
        version in "\\PC{0,8}",
        zone in "[a-z0-9-]{0,8}",
        metadata in prop::collection::btree_map("[a-z.]{1,6}", "\\PC{1,10}", 0..4),
        tls in prop::bool::weighted(0.1),
    ) -> Option<Record> {
        let address = address.parse().ok()?;
        let record = Record { id, weight, version, zone, metadata, tls, ..Record::new(address, "") };
        Some(record)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        record in any_record(),
        service in "[a-zA-Z][a-zA-Z0-9._-]{0,20}",
        format in prop::sample::select(WRITABLE),
    ) {
        let Some(record) = record else { return Ok(()) };
        let service: ServiceName = service.parse().unwrap();
        let layout = Layout::new(format, "/root").unwrap();
        let Ok(Written { key, value }) = layout.encode(&service, &record, LEASE) else { return Ok(()) };
        let read = layout.read(key.as_bytes(), value.as_bytes());
        prop_assert_eq!(&read[0], &(service, Ok(kept(format, record).into())));
    }
}
