//! What each format makes of records as frameworks write them.

use super::*;

mod agreement;
mod samples;
mod written;

/// Reads the key `path` below the format's own root for `service`, as it was meant.
pub(super) fn read_at(
    format: &str,
    service: &str,
    path: &str,
    value: &str,
) -> Result<Reading, RejectReason> {
    let layout = Layout::new(format, "").unwrap();
    let key = format!("{}{path}", layout.root());
    let reading = layout.read_for(&service.parse().unwrap(), key.as_bytes(), value.as_bytes());
    reading.unwrap_or_else(|| panic!("{key} is an instance of {service}"))
}

/// The services of the key `path`, the nearest first.
pub(super) fn services_of(format: &str, path: &str) -> Vec<String> {
    let layout = Layout::new(format, "").unwrap();
    let key = format!("{}{path}", layout.root());
    layout.services_of(key.as_bytes()).iter().map(ToString::to_string).collect()
}

/// What was left out, in words; empty for nothing.
pub(super) fn left_out(reading: Result<Reading, RejectReason>) -> String {
    reading.unwrap().left_out.map(|reason| reason.to_string()).unwrap_or_default()
}

/// Reads one record the way a lazy source does: the service is asked for by name.
fn read(
    format: &str,
    root: &str,
    service: &str,
    key: &str,
    value: &str,
) -> Result<Vec<Record>, RejectReason> {
    let layout = Layout::new(format, root).unwrap();
    let service: ServiceName = service.parse().unwrap();
    let prefix = layout.prefix(&service).unwrap();
    assert!(key.starts_with(&prefix), "{key} lies under {prefix}");
    let reading = layout.read_for(&service, key.as_bytes(), value.as_bytes());
    reading.expect("{key} is an instance").map(|reading| reading.records)
}

fn addresses(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.address.as_str()).collect()
}

/// Format, root, service, key, value, addresses. Each is read alike by `auto`.
type Good =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const GOOD: &[Good] = &[
    (
        "etcd-naming",
        "",
        "foo",
        "foo/host2",
        r#"{"Op":0,"Addr":"127.0.0.1:2001","Metadata":null}"#,
        &["127.0.0.1:2001"],
    ),
    // Op 1 in a stored value: official readers take every put as an addition.
    (
        "etcd-naming",
        "",
        "order.v1.OrderService",
        "order.v1.OrderService/10.0.1.10:9000",
        r#"{"Op":1,"Addr":"10.0.1.10:9000","Metadata":null}"#,
        &["10.0.1.10:9000"],
    ),
    (
        "etcd-naming",
        "",
        "order.v1.OrderService",
        "order.v1.OrderService/v6",
        r#"{"Op":0,"Addr":"[2001:db8::7]:9000","Metadata":null}"#,
        &["[2001:db8::7]:9000"],
    ),
    (
        "etcd-naming",
        "",
        "openim~user",
        "openim/user/10.8.0.11:10110",
        r#"{"Op":0,"Addr":"10.8.0.11:10110","Metadata":null}"#,
        &["10.8.0.11:10110"],
    ),
    (
        "etcd-naming",
        "openim",
        "user",
        "openim/user/7587870229348472322",
        r#"{"addr":"10.8.0.11:10110"}"#,
        &["10.8.0.11:10110"],
    ),
    (
        "grpc-wrapper",
        "",
        "user_service",
        "user_service/svc-user-0.user:8080",
        r#"{"Op":0,"Addr":"svc-user-0.user:8080","Metadata":"..."}"#,
        &["svc-user-0.user:8080"],
    ),
    (
        "koala",
        "/ibinarytree/koala/service/",
        "hello",
        "/ibinarytree/koala/service/hello/192.168.1.24:12345",
        r#"{"name":"hello","nodes":[{"id":"","ip":"192.168.1.24","port":12345,"weight":0}]}"#,
        &["192.168.1.24:12345"],
    ),
    (
        "koala",
        "/ibinarytree/koala",
        "comment_service",
        "/ibinarytree/koala/comment_service/all",
        r#"{"name":"comment_service","nodes":[
            {"id":"","ip":"10.192.1.4","port":8801,"weight":10},
            {"id":"","ip":"fd00::5","port":8801,"weight":20}]}"#,
        &["10.192.1.4:8801", "[fd00::5]:8801"],
    ),
    (
        "koala",
        "/xxx_company/app/kuaishou",
        "service_A",
        "/xxx_company/app/kuaishou/service_A/empty",
        r#"{"name":"service_A","nodes":null}"#,
        &[],
    ),
    ("go-zero", "", "hi.rpc", "hi.rpc/7587866389138268449", "10.3.0.5:8081", &["10.3.0.5:8081"]),
    ("go-zero", "", "user.rpc", "user.rpc/1", "[::1]:8080\n", &["[::1]:8080"]),
    (
        "go-zero",
        "",
        "~app~user.rpc",
        "/app/user.rpc/7587866389138268530",
        "10.3.0.11:8080",
        &["10.3.0.11:8080"],
    ),
];

#[test]
fn records_are_read_as_their_frameworks_write_them_by_name_and_by_shape() {
    for (format, root, service, key, value, expected) in GOOD {
        let named = read(format, root, service, key, value).unwrap();
        assert_eq!(addresses(&named), *expected, "{key}");
        let shaped = read("auto", root, service, key, value).unwrap();
        assert_eq!(addresses(&shaped), *expected, "{key} by shape");
    }
}

#[test]
fn every_key_leads_back_to_its_service() {
    for (format, root, service, key, ..) in GOOD {
        let layout = Layout::new(format, root).unwrap();
        assert_eq!(layout.services_of(key.as_bytes())[0].as_str(), *service, "{key}");
    }
    let layout = Layout::new("auto", "registry").unwrap();
    for stray in ["registry/alone", "registry/a b/1", "registry//1", "other/a/1", "registry/a/"] {
        assert!(layout.services_of(stray.as_bytes()).is_empty(), "{stray}");
    }
}

#[test]
fn koala_joins_paths_as_go_does() {
    let prefix =
        |root, service: &str| Layout::new("koala", root).unwrap().prefix(&service.parse().unwrap());
    assert_eq!(prefix("/a//b/", "~pkg~Service").unwrap(), "/a/b/pkg/Service/");
    assert_eq!(prefix("/", "hello").unwrap(), "/hello/");
    assert_eq!(prefix("", "hello").unwrap(), "/ibinarytree/koala/service/hello/");
    assert_eq!(prefix("/a", "~"), None, "the root itself is no service");
    assert_eq!(prefix("/a", "pkg~~Service"), None, "no key has a doubled slash");
    let value = r#"{"name":"/pkg/Service","nodes":[{"id":"","ip":"10.192.1.7","port":8801}]}"#;
    let key = "/root/pkg/Service/10.192.1.7:8801";
    for service in ["~pkg~Service", "pkg~Service"] {
        assert_eq!(read("koala", "/root", service, key, value).unwrap().len(), 1);
    }
    let value = value.replace("\"/pkg", "\"pkg");
    assert!(read("koala", "/root", "~pkg~Service", key, &value).unwrap().is_empty());
    assert_eq!(read("koala", "/root", "pkg~Service", key, &value).unwrap().len(), 1);
}

#[test]
fn metadata_gives_weight_version_and_zone_and_keeps_the_other_scalars() {
    let value = r#"{"Addr":"10.0.0.1:80","Metadata":{"weight":"3","Version":"v2","zone":"a",
        "state":"forbidden","canary":true,"shard":7,"nested":{"x":1},"none":null}}"#;
    let record = read("etcd-naming", "", "foo", "foo/host1", value).unwrap().remove(0);
    assert_eq!((record.id.as_str(), record.weight), ("host1", 3));
    assert_eq!((record.version.as_str(), record.zone.as_str()), ("v2", "a"));
    let kept: Vec<_> = record.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(kept, ["canary=true", "shard=7", "state=forbidden"]);
}

#[test]
fn metadata_that_is_plain_text_is_kept_whole() {
    let value = r#"{"Op":0,"Addr":"10.0.2.16:8080","Metadata":"v=1\u0026w=2"}"#;
    let record = read("grpc-wrapper", "", "user_service", "user_service/1", value).unwrap();
    assert_eq!(record[0].metadata["metadata"], "v=1&w=2");
    assert_eq!(record[0].format, "grpc-wrapper");
}

#[test]
fn koala_takes_weight_0_for_100_and_an_id_where_there_is_one() {
    let value = r#"{"name":"a","nodes":[{"id":"node-3","ip":"10.1.1.3","port":1,"weight":50},
        {"id":"","ip":"10.1.1.4","port":2,"weight":0},{"ip":"10.1.1.5","port":3,"weight":-4}]}"#;
    let read = read("koala", "/", "a", "/a/all", value).unwrap();
    let seen: Vec<_> = read.iter().map(|record| (record.id.as_str(), record.weight)).collect();
    assert_eq!(seen, [("node-3", 50), ("10.1.1.4:2", 100), ("10.1.1.5:3", 100)]);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    for (format, value, reason) in [
        ("etcd-naming", r#"{"Addr":"#, "not a JSON object"),
        ("etcd-naming", r#"["10.0.0.1:80"]"#, "not a JSON object"),
        ("etcd-naming", r#"{"Addr":"1.2.3.4","Metadata":"..."}"#, "has no port"),
        ("etcd-naming", r#"{"Addr":"http://1.2.3.4:80"}"#, "no usable host"),
        ("etcd-naming", r#"{"Addr":5}"#, "field `Addr`"),
        ("etcd-naming", "", "empty"),
        ("koala", r#"{"nodes":[]}"#, "field `name`"),
        ("koala", r#"{"name":"a"}"#, "field `nodes`"),
        ("koala", r#"{"name":"b","nodes":[]}"#, "another service, \"b\""),
        ("koala", r#"{"name":"a","nodes":[{"ip":"10.0.0.1","port":0}]}"#, "port outside"),
        ("koala", r#"{"name":"a","nodes":[{"ip":"","port":80}]}"#, "no usable host"),
        ("koala", r#"{"name":"a","nodes":[{"ip":"10.0.0.1","port":"80"}]}"#, "field `port`"),
        ("go-zero", "", "empty"),
        ("go-zero", "10.0.0.1", "has no port"),
        ("go-zero", r#"{"Addr":"10.0.0.1:80"}"#, "port outside"),
    ] {
        let error = read(format, "/", "a", "/a/1", value).unwrap_err().to_string();
        assert!(error.contains(reason), "{format} {value}: {error}");
    }
}

#[test]
fn a_shape_that_needs_its_format_declared_is_refused_by_name() {
    for (found, value) in [
        (
            "mqant",
            r#"{"name":"a","endpoints":null,"nodes":[{"id":"a@1","address":"_INBOX.x","port":0}]}"#,
        ),
        ("apisix", r#"{"nodes":{"127.0.0.1:8080":1},"type":"roundrobin"}"#),
        ("apisix", r#"{"nodes":[{"host":"127.0.0.1","port":80,"weight":1}]}"#),
        ("skydns", r#"{"host":"10.12.0.3","port":50051}"#),
        ("jupiter", r#"{"Op":0,"Addr":"10.14.0.1:9090","MetadataX":{"name":"a"}}"#),
    ] {
        let error = read("auto", "", "a", "a/1", value).unwrap_err();
        assert_eq!(error, RejectReason::Foreign(found), "{value}");
    }
    let error = read("auto", "", "a", "a/url", "http://10.0.0.1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "looks like traefik, which is read by a source with `format = \"traefik\"` only"
    );
    let key = "/dubbo/org.UserProvider/providers/tri%3A%2F%2F10.9.0.3%3A20000%2Forg.UserProvider";
    let service = "~dubbo~org.UserProvider~providers";
    let error = read("auto", "", service, key, "").unwrap_err();
    assert_eq!(error, RejectReason::Foreign("dubbo-interface"));
}

#[test]
fn a_source_rooted_above_the_registry_reads_it_by_longer_names() {
    let value = r#"{"id":"1","name":"helloworld","endpoints":["grpc://10.0.0.1:9000"]}"#;
    let read = |service, key| read("auto", "", service, key, value);
    assert_eq!(read("~microservices~helloworld", "/microservices/helloworld/1").unwrap().len(), 1);
    let error = read("~microservices~world", "/microservices/world/1").unwrap_err();
    assert_eq!(error, RejectReason::OtherService("helloworld".to_owned()));
}

#[test]
fn a_shape_of_no_framework_is_unknown_and_a_marker_is_nothing() {
    for value in [
        "{}",
        r#"{"protocol":"grpc"}"#,
        "calls=1.00&group=test",
        "Host(`a`)",
        "3",
        "a:b:1",
        "http://10.11.0.1:80",
    ] {
        assert_eq!(read("auto", "", "a", "a/1", value), Err(RejectReason::Unknown), "{value}");
    }
    for marker in ["", "init_dir", "rpcx_path", r#"{"name":"a","nodes":[]}"#] {
        assert_eq!(read("auto", "", "a", "a/1", marker), Ok(Vec::new()), "{marker}");
    }
}

#[test]
fn keys_and_values_are_bounded_before_they_are_read() {
    let layout = Layout::new("auto", "").unwrap();
    let service: ServiceName = "a".parse().unwrap();
    let decode =
        |key: &[u8], value: &[u8]| layout.read_for(&service, key, value).unwrap().unwrap_err();
    assert_eq!(decode(b"a/1", &vec![b'x'; MAX_VALUE + 1]), RejectReason::ValueTooLarge(65_537));
    assert_eq!(
        decode(&[b"a/", &[b'a'; MAX_KEY][..]].concat(), b"x"),
        RejectReason::KeyTooLong(1026, 1024)
    );
    assert_eq!(decode(b"a/\xff", b"x"), RejectReason::KeyNotText);
    assert_eq!(decode(b"a/1", b"\xff\xfe"), RejectReason::ValueNotText);
    assert_eq!(key_text(b"a/\xff"), r"a/\xff (3 bytes)");
    assert_eq!(key_text(b"a/1"), "a/1");
}

#[test]
fn hostile_json_is_refused_without_a_stack_overflow() {
    let deep = format!(r#"{{"Addr":{}"#, "[".repeat(60_000));
    let error = read("auto", "", "a", "a/1", &deep).unwrap_err();
    assert!(matches!(error, RejectReason::Json(_)));
}

#[test]
fn the_formats_are_those_that_a_source_may_name() {
    assert!(Layout::new("zookeeper", "").is_none());
    let names: Vec<_> = ALL.iter().map(|format| format.name()).collect();
    assert_eq!(names, FORMATS);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/src/bin");
    for name in names {
        let target = std::fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("read(\"{name}\", data)")), "{name} is fuzzed");
    }
}
