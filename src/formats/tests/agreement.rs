//! A source that lists one service and one that lists everything see the same.

use proptest::prelude::*;

use super::super::*;

/// Words that keys are made of, good and bad ones.
const WORDS: &[&str] = &[
    "a",
    "b",
    "a-b",
    "com.acme",
    "10.0.0.1:80",
    "10.0.0.1:80,10.0.0.2:80",
    "latest",
    "providers",
    "consumers",
    "tri%3A%2F%2F10.0.0.1%3A1%2Fa",
    "upstreams",
    "routes",
    "http",
    "HTTP",
    "tcp",
    "services",
    "loadbalancer",
    "loadBalancer",
    "servers",
    "url",
    "weight",
    "weighted",
    "0",
    "tcp@10.0.0.1:80",
    "grpc:a:v1:prod",
    "grpc:a",
    "http:a:v1:prod",
    "arpa",
    "dns",
    "apex",
    "a@1",
    "",
    ".",
    "..",
    "~",
    "a b",
    "ü",
];

const VALUES: &[&str] = &[
    "",
    "x",
    "10.0.0.1:80",
    "h2c://10.0.0.1:80",
    r#"{"Addr":"10.0.0.1:80"}"#,
    r#"{"name":"a","nodes":[{"ip":"10.0.0.1","port":80}]}"#,
    r#"{"name":"/a","nodes":[{"ip":"10.0.0.1","port":80}]}"#,
    r#"{"name":"a/b","nodes":[{"id":"1","address":"10.0.0.1:80","metadata":{"protocol":"grpc"}}]}"#,
    r#"{"name":"a-b","nodes":[{"id":"1","address":"10.0.0.1:80","metadata":{"protocol":"grpc"}}]}"#,
    r#"{"name":"a","endpoints":["grpc://10.0.0.1:80"]}"#,
    r#"{"host":"10.0.0.1","port":80}"#,
];

fn path() -> impl Strategy<Value = String> {
    let word = || prop::sample::select(WORDS);
    let any = prop::collection::vec(word(), 1..8).prop_map(|words| words.join("/"));
    let traefik = (word(), word(), prop::sample::select(&["url", "weight", "URL"])).prop_map(
        |(service, id, field)| format!("http/services/{service}/loadBalancer/servers/{id}/{field}"),
    );
    let dubbo = (word(), word()).prop_map(|(service, url)| format!("{service}/providers/{url}"));
    prop_oneof![4 => any, 1 => traefik, 1 => dubbo]
}

/// Names that may be those of a key, made of its words.
fn services(path: &str) -> impl Iterator<Item = ServiceName> {
    let words: Vec<_> = path.split('/').chain(["a", "b"]).collect();
    let two =
        |a: &str, b: &str| [a.to_owned(), format!("{a}~{b}"), format!("~{a}"), format!("{b}.{a}")];
    let names = words.iter().flat_map(|a| words.iter().flat_map(|b| two(a, b)));
    let names: Vec<_> = names.filter_map(|name| name.parse().ok()).collect();
    names.into_iter()
}

proptest! {
    #[test]
    fn one_service_alone_is_read_as_it_is_among_all(
        format in prop::sample::select(FORMATS),
        root in prop::sample::select(&["", "/", "root", "/x/y/"][..]),
        path in path(),
        value in prop::sample::select(VALUES),
    ) {
        let layout = Layout::new(format, root).unwrap();
        let key = format!("{}{path}", layout.root());
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let all = layout.read(key, value);
        for (service, reading) in &all {
            let prefix = layout.prefix(service);
            prop_assert!(prefix.is_some_and(|prefix| key.starts_with(prefix.as_bytes())), "{}", service);
            prop_assert_eq!(layout.read_for(service, key, value), Some(reading.clone()));
            prop_assert_eq!(all.iter().filter(|(other, _)| other == service).count(), 1);
        }
        for service in services(&path).filter(|service| all.iter().all(|(other, _)| other != service)) {
            prop_assert_eq!(layout.read_for(&service, key, value), None, "{}", service);
        }
        if !layout.is_whole() {
            let by_key = layout.services_of(key);
            prop_assert_eq!(all.into_iter().map(|(service, _)| service).collect::<Vec<_>>(), by_key.to_vec());
        }
    }
}

#[test]
fn each_format_has_the_root_of_its_framework_until_told_otherwise() {
    for (format, root) in [
        ("auto", ""),
        ("etcd-naming", ""),
        ("grpc-wrapper", ""),
        ("go-zero", ""),
        ("jupiter", ""),
        ("koala", "/ibinarytree/koala/service/"),
        ("kratos", "/microservices/"),
        ("kratos-v1", "/kratos_etcd/"),
        ("kitex", "kitex/registry-etcd/"),
        ("hertz", "hertz/registry-etcd/"),
        ("go-micro", "/micro/registry/"),
        ("mqant", "/mqant-registry/"),
        ("goframe", "/service/default/default/"),
        ("dubbo-app", "/services/"),
        ("dubbo-interface", "/dubbo/"),
        ("rpcx", "/rpcx_test/"),
        ("skydns", "/skydns/"),
        ("traefik", "traefik/"),
        ("apisix", "/apisix/"),
    ] {
        assert_eq!(Layout::new(format, "").unwrap().root(), root, "{format}");
        assert_eq!(Layout::new(format, "/a").unwrap().root(), "/a/", "{format}");
        assert_eq!(Layout::new(format, "/").unwrap().root(), "/", "{format}");
    }
    assert_eq!(ALL.len(), 19);
}
