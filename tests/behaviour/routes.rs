//! Routes: what decides about a call, and what becomes of it.
//!
//! The configurations are the examples of docs/routes.md, so that they do what is said there.

use std::{collections::HashMap, time::Duration};

use http::Request;

use crate::backend::Backend;
use crate::client::{Answer, Client, get, grpc_with, message};
use crate::program::Pillion;

/// The TOML of docs/routes.md below a heading.
fn example(heading: &str) -> &'static str {
    let text = include_str!("../../docs/routes.md");
    let section = text.split("\n#").find(|section| {
        section.trim_start_matches('#').lines().next().is_some_and(|line| line.trim() == heading)
    });
    let code = section.and_then(|section| section.split_once("```toml\n")).expect(heading).1;
    code.split_once("```").unwrap().0
}

/// A gRPC call of a method.
fn method(authority: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = grpc_with(authority, headers);
    *request.uri_mut() = format!("http://{authority}{path}").parse().unwrap();
    request
}

async fn call(client: &Client, request: Request<()>) -> Answer {
    client.send(request, &message(b"hello")).await.unwrap()
}

#[tokio::test]
async fn a_route_asks_for_authority_path_and_headers() {
    let (test, lists, orders) =
        (Backend::echo().await, Backend::echo().await, Backend::echo().await);
    let endpoints = [
        test.as_endpoint("orders-test"),
        lists.as_endpoint("orders-lists"),
        orders.as_endpoint("orders"),
    ];
    let pillion = Pillion::start(example("Which calls"), endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let all = [("x-user", "test"), ("x-tag", "canary-7"), ("X-Trace", "")];
    let (list, get) = ("/orders.v1.Orders/List", "/orders.v1.Orders/Get");
    for (path, headers, goes_to) in [
        (list, &all[..], &test),
        (list, &all[..2], &lists),
        (get, &all[..2], &orders),
        (get, &[all[0], ("x-tag", "canary"), all[2]], &orders),
        (get, &[all[0], ("x-tag", "one"), all[1], all[2]], &test),
        ("/orders.v2.Orders/List", &all[..], &orders),
    ] {
        let answer = call(&client, method("any.internal:8443", path, headers)).await;
        assert_eq!(answer.from(), goes_to.address(), "{path} {headers:?}");
    }
}

/// How many of `count` calls each answerer took.
async fn divide(
    client: &Client,
    count: usize,
    headers: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> HashMap<std::net::SocketAddr, f64> {
    let mut shares = HashMap::new();
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let calls = chunk.iter().map(async |at| {
            let headers = headers(*at);
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let answer = call(client, grpc_with("orders", &headers)).await;
            assert!(answer.is_ok(), "{answer:?}");
            answer.from()
        });
        for from in futures_util::future::join_all(calls).await {
            *shares.entry(from).or_default() += 1.0;
        }
    }
    shares
}

#[tokio::test]
async fn a_canary_takes_its_weight_of_ten_thousand_calls() {
    let (old, canary, next) = (Backend::echo().await, Backend::echo().await, Backend::echo().await);
    let endpoints = [
        old.as_endpoint_with("orders", "version = \"v1\""),
        canary.as_endpoint_with("orders", "version = \"v2\""),
        next.as_endpoint("orders-next"),
    ];
    let config = format!("defaults.connection = \"pooled\"\n{}", example("Canaries"));
    let pillion = Pillion::start(&config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let shares = divide(&client, 10_000, |_| Vec::new()).await;
    // Chance is not ours to seed here: five standard deviations are passed once in a million runs.
    for (backend, share) in [(&canary, 0.10), (&next, 0.05), (&old, 0.85_f64)] {
        let (taken, expected) = (shares[&backend.address()], 10_000.0 * share);
        assert!((taken - expected).abs() < 5.0 * (expected * (1.0 - share)).sqrt(), "{shares:?}");
    }
}

#[tokio::test]
async fn a_user_goes_the_same_way_on_every_proxy() {
    let (old, canary) = (Backend::echo().await, Backend::echo().await);
    let endpoints = [
        old.as_endpoint_with("orders", "version = \"v1\""),
        canary.as_endpoint_with("orders", "version = \"v2\""),
    ];
    let config = example("The same way for the same user");
    let (one, two) =
        (Pillion::start(config, endpoints.clone()).await, Pillion::start(config, endpoints).await);
    let (one, two) = (Client::connect(one.address()).await, Client::connect(two.address()).await);
    let mut canaries = 0;
    for user in 0..200 {
        let of_user = grpc_with("orders", &[("x-user", &format!("user-{user}"))]);
        let way = call(&one, of_user.clone()).await.from();
        assert_eq!(call(&one, of_user.clone()).await.from(), way);
        assert_eq!(call(&two, of_user).await.from(), way);
        canaries += usize::from(way == canary.address());
    }
    // The hash is fixed, and so is this number; 20 are expected.
    assert!((10..=30).contains(&canaries), "{canaries}");
    let of_nobody = async || call(&one, grpc_with("orders", &[])).await.from();
    let mut took = std::collections::HashSet::new();
    while took.len() < 2 {
        took.insert(of_nobody().await);
    }
}

#[tokio::test]
async fn a_canary_takes_its_weight_of_ten_thousand_users_wherever_their_keys_lead() {
    let [old, one, two] = [Backend::echo().await, Backend::echo().await, Backend::echo().await];
    let endpoints = [
        old.as_endpoint_with("orders", "version = \"v1\""),
        one.as_endpoint_with("orders", "version = \"v2\""),
        two.as_endpoint_with("orders", "version = \"v2\""),
    ];
    let keyed =
        "[defaults]\nconnection = \"pooled\"\nbalance = \"maglev\"\nhash_on = \"header:x-user\"";
    let config = format!("{keyed}\n{}", example("The same way for the same user"));
    let pillion = Pillion::start(&config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let shares = divide(&client, 10_000, |user| vec![("x-user", format!("user-{user}"))]).await;
    // Hashes are fixed, and so are these numbers: three standard deviations.
    let off = (shares[&old.address()] - 9_000.0).abs();
    assert!(off < 3.0 * (10_000.0 * 0.1 * 0.9_f64).sqrt(), "{shares:?}");
    let canaries = 10_000.0 - shares[&old.address()];
    let off = (shares[&one.address()] - canaries / 2.0).abs();
    assert!(off < 3.0 * (canaries * 0.25).sqrt(), "{shares:?}");
}

#[tokio::test]
async fn a_route_changes_what_the_endpoint_is_told() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start(example("Headers"), [backend.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    let sent = [("x-debug", "1"), ("x-env", "prod"), ("x-tag", "mine"), ("x-other", "stays")];
    assert!(call(&client, grpc_with("orders", &sent)).await.is_ok());
    let headers = backend.last_head().headers;
    let values =
        |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((values("x-debug"), values("x-env")), (vec![], vec!["canary"]));
    assert_eq!((values("x-tag"), values("x-other")), (vec!["mine", "routed"], vec!["stays"]));
}

#[tokio::test]
async fn a_route_has_a_policy_of_its_own_over_that_of_its_service() {
    let backend = Backend::echo().await;
    let config = example("Policy of some calls");
    let pillion = Pillion::start(config, [backend.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    for (path, timeout) in [("/orders.v1.Orders/Export", 120), ("/orders.v1.Orders/Get", 5)] {
        assert!(call(&client, method("orders", path, &[])).await.is_ok());
        let left = backend.last_head().headers["grpc-timeout"].to_str().unwrap().to_owned();
        let unit = match left.chars().last().unwrap() {
            'n' => 1e-9,
            'u' => 1e-6,
            'm' => 1e-3,
            _ => 1.0,
        };
        let seconds = left[..left.len() - 1].parse::<f64>().unwrap() * unit;
        let limit = f64::from(timeout);
        assert!(seconds <= limit && seconds > limit - 4.0, "{path}: {left}");
    }
}

#[tokio::test]
async fn a_filter_falls_back_in_order() {
    let backends = [Backend::echo().await, Backend::echo().await, Backend::echo().await];
    let keys = [
        "version = \"v2\"\nzone = \"a\"",
        "version = \"v2\"\nzone = \"b\"",
        "version = \"v1\"\nzone = \"a\"",
    ];
    let endpoints = |from: usize| {
        let both = backends.iter().zip(keys).skip(from);
        both.map(|(backend, keys)| backend.as_endpoint_with("orders", keys)).collect::<Vec<_>>()
    };
    let pillion = Pillion::start(example("Filters that fall back"), endpoints(0)).await;
    let client = Client::connect(pillion.address()).await;
    for (from, backend) in backends.iter().enumerate() {
        if from > 0 {
            pillion.set_endpoints(endpoints(from)).await;
        }
        assert_eq!(client.call("orders").await.from(), backend.address());
    }
}

#[tokio::test]
async fn a_route_answers_by_itself_in_the_form_of_the_call() {
    let pillion = Pillion::start(example("An answer without an endpoint"), []).await;
    let client = Client::connect(pillion.address()).await;
    let ended = call(&client, method("orders", "/orders.v0.Orders/Get", &[])).await;
    assert_eq!((ended.head.status.as_u16(), ended.grpc_status()), (200, Some(12)));
    assert_eq!(ended.header("grpc-message"), Some("orders.v0 has ended; use orders.v1"));
    assert_eq!(ended.header("pillion-error"), Some("direct_response"));
    let other = call(&client, method("orders", "/orders.v1.Orders/Get", &[])).await;
    assert_eq!(other.header("pillion-error"), Some("no_endpoints"));
    let health = client.send(get("health.internal"), b"").await.unwrap();
    assert_eq!((health.head.status.as_u16(), &*health.body), (200, &b"ok\n"[..]));
    assert_eq!(health.header("pillion-error"), None);
    let metrics = pillion.metrics().await;
    let counted =
        |status, error| metrics.sum("requests_total", &[("grpc_status", status), ("error", error)]);
    assert_eq!((counted("UNIMPLEMENTED", "direct_response"), counted("200", "")), (1.0, 1.0));
    let why = pillion.get("/why?authority=orders&path=/orders.v0.Orders/Get").await.json();
    assert_eq!((&why["verdict"], &why["route"]["name"]), (&"direct_response".into(), &"#1".into()));
}

#[tokio::test]
async fn faults_fall_on_their_share_of_the_calls_that_ask_for_them() {
    let backend = Backend::echo().await;
    // A delay of the example takes too long for as many calls as it takes to tell 10 % from 12 %.
    let config = example("Trouble on purpose").replace("100ms", "1ms").replace("= 1.0", "= 20.0");
    let config = format!("defaults.connection = \"pooled\"\n{config}");
    let pillion = Pillion::start(&config, [backend.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    let mut aborted = 0.0;
    for _ in 0..2_000 {
        let answer = call(&client, grpc_with("orders", &[("x-trouble", "please")])).await;
        if answer.header("pillion-error") == Some("fault") {
            assert_eq!(answer.grpc_status(), Some(14));
            assert!(answer.header("grpc-message").unwrap().contains("route #1"), "{answer:?}");
            aborted += 1.0;
        } else {
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
    let metrics = pillion.metrics().await;
    let counted = |fault| metrics.sum("faults_total", &[("service", "orders"), ("fault", fault)]);
    assert_eq!(counted("abort"), aborted);
    // Five standard deviations.
    for (share, count) in [(0.2, aborted), (0.1_f64, counted("delay"))] {
        let expected = 2_000.0 * share;
        assert!((count - expected).abs() < 5.0 * (expected * (1.0 - share)).sqrt(), "{count}");
    }
    assert_eq!(f64::from(backend.counts().calls as u32), 2_000.0 - aborted);
    for _ in 0..200 {
        assert!(client.call("orders").await.is_ok());
    }
}

#[tokio::test]
async fn the_deadline_goes_on_while_a_call_is_held_up() {
    let backend = Backend::echo().await;
    let config = example("Trouble on purpose").replace("100ms", "1h").replace("= 10.0", "= 100.0");
    let pillion = Pillion::start(&config, [backend.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    let hurried = [("x-trouble", "1"), ("grpc-timeout", "50m")];
    let late = call(&client, grpc_with("orders", &hurried)).await;
    assert_eq!(late.header("pillion-error"), Some("deadline_exceeded"));
    let text = late.header("grpc-message").unwrap();
    assert!(text.contains("before an endpoint was chosen"), "{text}");
    let given_up = client.begin(grpc_with("orders", &[("x-trouble", "1")])).await;
    let in_flight = |metrics: &crate::metrics::Metrics| {
        metrics.sum("requests_in_flight", &[("service", "orders")])
    };
    pillion.until_metrics("the call is held up", |metrics| in_flight(metrics) == 1.0).await;
    drop(given_up);
    pillion.until_metrics("the wait ends", |metrics| in_flight(metrics) == 0.0).await;
    assert_eq!(backend.counts().calls, 0);
}

#[tokio::test]
async fn a_call_is_held_up_for_as_long_as_the_route_says() {
    let backend = Backend::echo().await;
    let config = example("Trouble on purpose").replace("= 10.0", "= 100.0").replace("= 1.0", "= 0");
    let pillion = Pillion::start(&config, [backend.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    let began = std::time::Instant::now();
    assert!(call(&client, grpc_with("orders", &[("x-trouble", "1")])).await.is_ok());
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn why_shows_the_route_its_ways_and_the_one_that_is_taken() {
    let backend = Backend::echo().await;
    let config = example("The same way for the same user");
    let endpoints = [backend.as_endpoint_with("orders", "version = \"v2\"")];
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for user in 0..20 {
        let user = format!("user-{user}");
        let query = format!("/why?authority=orders&header=x-user:%20{user}");
        let why = pillion.get(&query).await.json();
        let ways = &why["route"]["ways"];
        assert_eq!((&ways[0]["share"], &ways[1]["filter"]), (&0.1.into(), &"version=v1".into()));
        let answer = call(&client, grpc_with("orders", &[("x-user", &user)])).await;
        assert_eq!(ways[0]["taken"], answer.is_ok(), "{why}");
        assert_eq!(ways[1]["taken"], !answer.is_ok());
    }
    let asked = grpc_with("orders", &[("pillion-explain", "1")]);
    let why = call(&client, asked).await.header("pillion-why").unwrap().to_owned();
    assert!(why.contains("route=\"#1\""), "{why}");
}
