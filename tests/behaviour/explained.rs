//! Decisions, explained: to the caller, to operators and in figures.

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::calls::until_calls;
use crate::client::{Answer, Client, get, grpc_with};
use crate::errors::refusing;
use crate::program::{Pillion, endpoint};

async fn ask(client: &Client, service: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [headers, &[("pillion-explain", "1")]].concat();
    client.send(grpc_with(service, &headers), b"").await.unwrap()
}

fn why(answer: &Answer) -> &str {
    answer.header("pillion-why").unwrap()
}

/// Stages of a recorded call, as `stage kept`.
fn stages(call: &Value) -> Vec<String> {
    let stage = |step: &Value| format!("{} {}", step["stage"].as_str().unwrap(), step["kept"]);
    call["stages"].as_array().unwrap().iter().map(stage).collect()
}

#[tokio::test]
async fn a_caller_is_told_each_stage_and_why_endpoints_were_left_out() {
    let backend = Backend::echo().await;
    let other =
        |last: u8, keys: &str| endpoint("echo", format!("10.0.0.{last}:80").parse().unwrap(), keys);
    let endpoints = [
        backend.as_endpoint_with("echo", "version = \"v1\"\nzone = \"a\""),
        other(2, "version = \"v1\"\nzone = \"b\""),
        other(3, "version = \"v3\""),
        other(4, "version = \"v1\"\nweight = 0"),
    ];
    let config = "
        [node]
        zone = \"a\"
        [defaults]
        filter = \"version=v2;version=v1;\"
        zone_preference = \"prefer\"
        subset = 1
    ";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let answer = ask(&client, "echo", &[]).await;
    assert!(answer.is_ok());
    let told = why(&answer);
    for part in [
        "service=echo known=4 ",
        " filter=\"version=v2;version=v1;\" rule=\"version=v1\" balance=\"p2c\" ",
        " stages=\"known 4 > filter version=v2 0 > filter version=v1 2 > zone a 1\" ",
        " dropped=\"10.0.0.3:80 not version=v1; 10.0.0.4:80 weight 0: drained; \
         10.0.0.2:80 zone a carries all calls\" ",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    // The admin address tells the same of such a call, with the figures and all that were left out.
    let page = pillion.get("/why?authority=echo").await.json();
    assert_eq!(
        stages(&json!({"stages": page["steps"]})),
        ["known 4", "filter version=v2 0", "filter version=v1 2", "zone a 1"]
    );
}

#[tokio::test]
async fn a_call_that_no_endpoint_could_take_says_what_each_one_lacked() {
    let endpoints = (0..40).map(|last| {
        endpoint("orders", format!("10.0.0.{last}:80").parse().unwrap(), "version = \"v1\"")
    });
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let answer = ask(&client, "orders", &[("pillion-filter", "version=v2;gpu")]).await;
    assert_eq!(answer.header("pillion-error"), Some("no_match"));
    let told = why(&answer);
    for part in [
        "known 40 > filter version=v2 0 > filter gpu 0",
        " dropped=\"10.0.0.0:80 not gpu; ",
        "; 32 others\" ",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let page = until_calls(&pillion, "", 1).await;
    let call = &page["calls"][0];
    assert_eq!(stages(call), ["known 40", "filter version=v2 0", "filter gpu 0"]);
    assert!(call["dropped"].as_str().unwrap().ends_with("; 32 others"), "{call}");
    assert_eq!(call["rule"], Value::Null);
}

#[tokio::test]
async fn a_pin_and_a_route_are_told_and_an_answer_of_a_route_too() {
    let backend = Backend::echo().await;
    let config = "
        [[route]]
        authority = \"closed\"
        respond = { http_status = 403, message = \"closed\" }
        [[route]]
        authority = \"echo\"
        service = \"echo\"
    ";
    let pillion = Pillion::start(config, [backend.as_endpoint_with("echo", "id = \"e1\"")]).await;
    let client = Client::connect(pillion.address()).await;
    let answer = ask(&client, "echo@e1", &[]).await;
    let told = why(&answer);
    assert!(told.contains(" route=\"#2\" "), "{told}");
    assert!(
        told.contains(" node=\"e1\" balance=\"p2c\" stages=\"known 1 > node e1 1\" "),
        "{told}"
    );
    let mut closed = get("closed");
    closed.headers_mut().insert("pillion-explain", "1".parse().unwrap());
    let closed = client.send(closed, b"").await.unwrap();
    assert!(
        why(&closed).starts_with("service=unknown route=\"#1\" attempts=0 "),
        "{}",
        why(&closed)
    );
}

#[tokio::test]
async fn an_explanation_has_a_bound_however_long_the_filter_and_many_the_endpoints() {
    let endpoints = (0..250).map(|at| {
        let address = format!("10.1.0.{at}:80").parse().unwrap();
        endpoint("orders", address, "")
    });
    let pillion = Pillion::start("", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let filter = "version=none;".repeat(31) + &"x".repeat(20_000);
    let answer = ask(&client, "orders", &[("pillion-filter", &filter)]).await;
    assert_eq!(answer.header("pillion-error"), Some("no_match"));
    let told = why(&answer);
    assert!(told.len() < 4096 && told.contains("known=250"), "{} bytes: {told}", told.len());
    let page = until_calls(&pillion, "", 1).await;
    let size = page["calls"][0].to_string().len();
    assert!(size < 16_384, "{size} bytes");
}

#[tokio::test]
async fn picks_are_counted_by_the_rule_that_matched_on_what_can_take_a_call() {
    let backend = Backend::echo().await;
    let endpoints = [
        endpoint("echo", refusing().await, "version = \"v2\""),
        backend.as_endpoint_with("echo", "version = \"v1\""),
        backend.as_endpoint("any"),
    ];
    let config = "
        [service.echo]
        filter = \"version=v2;version=v1\"
        [[route]]
        authority = \"routed\"
        service = \"echo\"
        filter = \"version=v9;\"
    ";
    let pillion = Pillion::start(config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..3 {
        assert!(client.call("echo").await.is_ok());
    }
    assert!(client.call("any").await.is_ok());
    assert!(client.call("routed").await.is_ok());
    for filter in ["version=v1", "version=none;version=v1", "version=other;"] {
        client.send(grpc_with("echo", &[("pillion-filter", filter)]), b"").await.unwrap();
    }
    let metrics = pillion.metrics().await;
    let of = |rule| metrics.sum("filter_matches_total", &[("service", "echo"), ("rule", rule)]);
    assert_eq!(of("version=v2"), 3.0, "the first attempt of each");
    assert_eq!(of("version=v1"), 3.0, "the second, since the endpoint of v2 refuses connections");
    assert!(of("any") >= 1.0, "of the route");
    assert!(of("pillion-filter") >= 3.0, "whatever callers send is one");
    let all = metrics.sum("filter_matches_total", &[("service", "echo")]);
    assert_eq!(all, of("version=v2") + of("version=v1") + of("any") + of("pillion-filter"));
    assert_eq!(metrics.sum("filter_matches_total", &[("service", "any")]), 0.0, "it has no filter");
}
