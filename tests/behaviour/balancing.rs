//! Which endpoint a call goes to: weights, filters, pins.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use futures_util::{StreamExt, stream};

use crate::backend::Backend;
use crate::client::{Answer, Client, grpc, grpc_with};
use crate::program::Pillion;

/// How many of `calls` calls each endpoint answered, `concurrent` of them at once.
async fn shares(
    pillion: &Pillion,
    service: &str,
    calls: usize,
    concurrent: usize,
) -> HashMap<SocketAddr, usize> {
    let client = Arc::new(Client::connect(pillion.address()).await);
    let mut shares = HashMap::new();
    let mut answers = stream::iter(0..calls)
        .map(|_| async { client.call(service).await.from() })
        .buffer_unordered(concurrent);
    while let Some(from) = answers.next().await {
        *shares.entry(from).or_default() += 1;
    }
    shares
}

/// Who answers a call with these headers, or why nobody does.
async fn answered_by(client: &Client, headers: &[(&str, &str)]) -> Result<SocketAddr, String> {
    let answer: Answer = client.send(grpc_with("echo", headers), b"").await.unwrap();
    match answer.header("pillion-error") {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer.from()),
    }
}

async fn backends<const N: usize>() -> [Backend; N] {
    let mut backends = Vec::new();
    for _ in 0..N {
        backends.push(Backend::echo().await);
    }
    backends.try_into().unwrap()
}

#[tokio::test]
async fn endpoints_get_their_weight_of_the_calls_whatever_the_balancer() {
    let backends = backends::<3>().await;
    let mut config = String::new();
    let mut endpoints = Vec::new();
    for balancer in ["weighted_random", "round_robin", "p2c"] {
        config +=
            &format!("[service.{balancer}]\nbalance = \"{balancer}\"\nconnection = \"pooled\"\n");
        for (backend, weight) in backends.iter().zip(1..) {
            endpoints.push(backend.as_endpoint_with(balancer, &format!("weight = {weight}")));
        }
    }
    let pillion = Pillion::start(&config, endpoints).await;
    for balancer in ["weighted_random", "round_robin", "p2c"] {
        let shares = shares(&pillion, balancer, 1_800, 8).await;
        for (backend, expected) in backends.iter().zip([300.0, 600.0, 900.0]) {
            let share = shares[&backend.address()] as f64;
            assert!((share / expected - 1.0).abs() < 0.05, "{balancer}: {shares:?}");
        }
    }
}

#[tokio::test]
async fn new_weights_act_on_the_next_call() {
    let [one, two] = backends().await;
    let only = |first: u32, second: u32| {
        [
            one.as_endpoint_with("echo", &format!("weight = {first}")),
            two.as_endpoint_with("echo", &format!("weight = {second}")),
        ]
    };
    let pillion = Pillion::start("", only(1, 0)).await;
    assert_eq!(shares(&pillion, "echo", 20, 1).await, HashMap::from([(one.address(), 20)]));
    pillion.set_endpoints(only(0, 1)).await;
    assert_eq!(shares(&pillion, "echo", 20, 1).await, HashMap::from([(two.address(), 20)]));
    pillion.set_endpoints(only(1, 3)).await;
    let both = shares(&pillion, "echo", 40, 1).await;
    assert!((8..=12).contains(&both[&one.address()]), "{both:?}");
}

#[tokio::test]
async fn the_filter_of_the_call_goes_before_that_of_the_route_and_that_of_the_service() {
    let [v1, v2, v3] = backends().await;
    let config = "
        [defaults]
        filter = \"version=v9\"
        [service.echo]
        filter = \"version=v1\"
        [[route]]
        authority = \"routed.internal\"
        service = \"echo\"
        filter = \"version in (v2)\"
    ";
    let endpoints = [(&v1, "v1"), (&v2, "v2"), (&v3, "v3")].map(|(backend, version)| {
        backend.as_endpoint_with("echo", &format!("version = {version:?}"))
    });
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..10 {
        assert_eq!(client.call("echo").await.from(), v1.address());
        assert_eq!(client.call("routed.internal").await.from(), v2.address());
        let head = grpc_with("routed.internal", &[("pillion-filter", "version=v3")]);
        assert_eq!(client.send(head, b"").await.unwrap().from(), v3.address());
    }
    let all = answered_by(&client, &[("pillion-filter", "")]).await.unwrap();
    assert!([&v1, &v2, &v3].iter().any(|backend| backend.address() == all));
}

#[tokio::test]
async fn a_filter_chooses_by_every_kind_of_requirement() {
    let [a, b, c] = backends().await;
    let endpoints = [
        a.as_endpoint_with(
            "echo",
            "id = \"a\"\nversion = \"v1\"\nzone = \"z1\"\nmetadata = { gpu = \"a100\", canary = \"\" }",
        ),
        b.as_endpoint_with("echo", "id = \"b\"\nversion = \"v2\"\nzone = \"z2\""),
        c.as_endpoint_with("echo", "id = \"c\"\nversion = \"v2\"\nzone = \"z3\"\nmetadata = { spot = \"1\" }"),
    ];
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for (filter, expected) in [
        ("version=v1", &[&a][..]),
        ("version==v2", &[&b, &c]),
        ("version!=v2", &[&a]),
        ("zone in (z1, z3)", &[&a, &c]),
        ("zone notin (z1,z3)", &[&b]),
        ("gpu", &[&a]),
        ("gpu=a100,canary", &[&a]),
        ("!spot", &[&a, &b]),
        ("version=v2,!spot", &[&b]),
        ("id=c", &[&c]),
        ("source=file,format=file", &[&a, &b, &c]),
        ("version=v9;zone=z2", &[&b]),
        ("version=v9;", &[&a, &b, &c]),
    ] {
        let mut seen = Vec::new();
        for _ in 0..12 {
            seen.push(answered_by(&client, &[("pillion-filter", filter)]).await.expect(filter));
        }
        seen.sort();
        seen.dedup();
        let mut expected: Vec<_> = expected.iter().map(|backend| backend.address()).collect();
        expected.sort();
        assert_eq!(seen, expected, "{filter}");
    }
    let none = answered_by(&client, &[("pillion-filter", "version=v9")]).await;
    assert_eq!(none, Err("no_match".to_owned()));
}

#[tokio::test]
async fn a_pin_reaches_the_named_endpoint_whatever_its_state_and_no_other() {
    let [ready, drained, forbidden] = backends().await;
    let endpoints = [
        ready.as_endpoint_with("echo", "id = \"r\""),
        drained.as_endpoint_with("echo", "id = \"d\"\nweight = 0"),
        forbidden.as_endpoint_with("echo", "id = \"f\"\nmetadata = { state = \"forbidden\" }"),
    ];
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for (id, backend) in [("r", &ready), ("d", &drained), ("f", &forbidden)] {
        assert_eq!(client.call(&format!("echo@{id}")).await.from(), backend.address());
        let by_address = backend.address().to_string();
        for node in [id, &by_address] {
            let pinned = answered_by(&client, &[("pillion-node", node)]).await;
            assert_eq!(pinned, Ok(backend.address()));
        }
    }
    let other = Backend::echo().await.address().to_string();
    for node in ["unheard-of", &other] {
        let pinned = answered_by(&client, &[("pillion-node", node)]).await;
        assert_eq!(pinned, Err("no_match".to_owned()));
    }
    // Without a pin, neither of the two is ever chosen.
    assert_eq!(shares(&pillion, "echo", 30, 1).await, HashMap::from([(ready.address(), 30)]));
}

#[tokio::test]
async fn a_pinned_call_is_not_moved_to_another_endpoint_when_its_own_fails() {
    let [alive, mut dead] = backends().await;
    dead.kill().await;
    let endpoints = [alive.as_endpoint("echo"), dead.as_endpoint_with("echo", "id = \"dead\"")];
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let answer = client.send(grpc("echo@dead"), b"").await.unwrap();
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
    assert_eq!(alive.counts().calls, 0);
}

#[tokio::test]
async fn when_every_weight_is_zero_the_choice_is_uniform() {
    let backends = backends::<3>().await;
    let endpoints = backends.iter().map(|backend| backend.as_endpoint_with("echo", "weight = 0"));
    let pillion = Pillion::start("", endpoints).await;
    let shares = shares(&pillion, "echo", 60, 1).await;
    for backend in &backends {
        assert!((15..=25).contains(&shares[&backend.address()]), "{shares:?}");
    }
}
