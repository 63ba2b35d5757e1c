//! What reaches an endpoint of the head of a call, and what the proxy adds.

use http::HeaderMap;

use crate::backend::Backend;
use crate::client::{Client, grpc, grpc_with};
use crate::program::Pillion;
use crate::raw::{END_STREAM, Frame, HEADERS, Wire};

fn ours(headers: &HeaderMap) -> Vec<(String, String)> {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("pillion-"));
    let mut ours: Vec<_> =
        ours.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    ours.sort();
    ours
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn headers_for_the_proxy_end_there_and_those_of_the_caller_are_its_own() {
    let backend = Backend::echo().await;
    let node = "[node]\nservice = \"shop\"\nid = \"shop-1\"\ncluster = \"c1\"\nzone = \"z1\"\nenv = \"prod\"";
    let pillion = Pillion::start(node, [backend.as_endpoint_with("echo", "id = \"e1\"")]).await;
    let client = Client::connect(pillion.address()).await;
    let forged = [
        ("pillion-service", "echo"),
        ("pillion-node", "e1"),
        ("pillion-filter", ""),
        ("pillion-hash-key", "42"),
        ("pillion-explain", "yes"),
        ("pillion-caller", "forged"),
        ("pillion-caller-env", "forged"),
        ("pillion-attempt", "9"),
        ("pillion-error", "forged"),
        ("pillion-whatever", "one"),
        ("pillion-whatever", "two"),
    ];
    assert!(client.send(grpc_with("echo", &forged), b"").await.unwrap().is_ok());
    let expected = pairs(&[
        ("pillion-attempt", "1"),
        ("pillion-caller", "shop"),
        ("pillion-caller-cluster", "c1"),
        ("pillion-caller-env", "prod"),
        ("pillion-caller-zone", "z1"),
    ]);
    assert_eq!(ours(&backend.last_head().headers), expected);
}

#[tokio::test]
async fn what_is_not_configured_is_not_said_of_the_caller() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    assert!(Client::connect(pillion.address()).await.call("echo").await.is_ok());
    assert_eq!(ours(&backend.last_head().headers), pairs(&[("pillion-attempt", "1")]));
}

#[tokio::test]
async fn everything_else_passes_untouched() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let theirs = [
        ("te", "trailers"),
        ("user-agent", "grpc-python/1.85"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("x-forwarded-for", "10.0.0.1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("my-pillion-header", "not ours"),
    ];
    assert!(client.send(grpc_with("echo", &theirs[1..]), b"").await.unwrap().is_ok());
    let head = backend.last_head();
    for (name, value) in theirs {
        assert!(head.headers.get_all(name).iter().any(|v| v == value), "{name}");
    }
    assert_eq!(head.headers.get_all("te").iter().count(), 1);
    assert_eq!(head.uri.path(), "/pillion.test.Echo/Unary");
    assert_eq!(head.method, "POST");
    assert_eq!(head.headers.len(), theirs.len() + 2, "content-type and attempt: {head:?}");
}

#[tokio::test]
async fn the_authority_goes_on_as_it_came_less_a_node() {
    let backend = Backend::echo().await;
    let services = ["echo", "Echo.v1", "team~echo"];
    let endpoints = services.map(|service| backend.as_endpoint_with(service, "id = \"e1\""));
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for (authority, goes_on) in [
        ("echo", "echo"),
        ("echo:8443", "echo:8443"),
        ("Echo.v1", "Echo.v1"),
        ("team~echo", "team~echo"),
        ("echo@e1", "echo"),
        ("echo:8443@e1", "echo:8443"),
    ] {
        let answer = client.call(authority).await;
        assert!(answer.is_ok(), "{authority}: {answer:?}");
        assert_eq!(backend.last_head().uri.authority().unwrap().as_str(), goes_on);
    }
}

#[tokio::test]
async fn a_host_beside_the_authority_is_dropped_and_one_instead_of_it_is_used() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc_with("echo", &[("host", "elsewhere")]), b"").await.unwrap();
    assert!(answer.is_ok());
    assert_eq!(backend.last_head().headers.get("host"), None);
    let mut wire = Wire::connect(pillion.address()).await;
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/p.S/M"),
        ("host", "echo:1234"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    wire.send(&[Frame::headers(END_STREAM, 1, &fields)]).await;
    assert_eq!(wire.answer(1).await.last().unwrap().kind, HEADERS);
    let head = backend.last_head();
    assert_eq!(head.uri.authority().unwrap().as_str(), "echo:1234");
    assert_eq!(head.headers.get("host"), None);
}

#[tokio::test]
async fn a_service_is_named_by_header_then_by_route_then_by_authority() {
    let (header, route, authority) =
        (Backend::echo().await, Backend::echo().await, Backend::echo().await);
    let config = "
        [[route]]
        authority = \"*.internal\"
        path_prefix = \"/pillion.test.\"
        service = \"of-route\"
    ";
    let endpoints = [
        header.as_endpoint("of-header"),
        route.as_endpoint("of-route"),
        authority.as_endpoint("x.internal"),
        authority.as_endpoint("x.external"),
    ];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("x.internal:80").await.from(), route.address());
    assert_eq!(client.call("x.external:80").await.from(), authority.address());
    let mut other_path = grpc("x.internal");
    *other_path.uri_mut() = "http://x.internal/other.Service/Call".parse().unwrap();
    assert_eq!(client.send(other_path, b"").await.unwrap().from(), authority.address());
    let named = grpc_with("x.internal", &[("pillion-service", "of-header")]);
    assert_eq!(client.send(named, b"").await.unwrap().from(), header.address());
}

#[tokio::test]
async fn the_decision_is_explained_in_one_line_to_whoever_asks() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("echo").await.header("pillion-why"), None);
    for service in ["echo", "nowhere"] {
        let asked = grpc_with(service, &[("pillion-explain", "1")]);
        let answer = client.send(asked, b"").await.unwrap();
        let why = answer.header("pillion-why").expect(service);
        let endpoint = backend.address().to_string();
        assert_eq!(why.contains(&endpoint), service == "echo", "{why}");
    }
}
