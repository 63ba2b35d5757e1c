//! The access log: one line a call on stdout.

use serde_json::Value;

use crate::backend::{Backend, Incoming};
use crate::client::{Client, get, grpc};
use crate::program::Pillion;
use crate::wait::until;

/// A proxy with this kind of log, through which a call of every sort has gone.
async fn log_of(kind: &str, lines: usize) -> String {
    let (backend, never) = (Backend::echo().await, Backend::start(Incoming::never).await);
    let config = format!("access_log = \"{kind}\"");
    let pillion =
        Pillion::start(&config, [backend.as_endpoint("echo"), never.as_endpoint("never")]).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    client.send(get("echo"), b"").await.unwrap();
    client.call("nowhere").await;
    let mut call = client.begin(grpc("never")).await;
    never.until("the call has come", |counts| counts.calls == 1).await;
    call.body.send_reset(h2::Reason::CANCEL);
    never.until("the call is cancelled", |counts| counts.cancelled == 1).await;
    pillion
        .until_metrics("all calls are over", |metrics| metrics.sum("requests_total", &[]) == 4.0)
        .await;
    until("all lines are written", async || pillion.output().lines().count() >= lines).await;
    pillion.output().replace(&backend.address().to_string(), "BACKEND")
}

#[tokio::test]
async fn a_line_of_json_tells_of_each_call() {
    let log = log_of("json", 4).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let field = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("service"), ["echo", "echo", "", "never"]);
    assert_eq!(field("status"), ["OK", "200", "UNAVAILABLE", "CANCELLED"]);
    assert_eq!(field("error"), ["", "", "no_endpoints", "cancelled"]);
    assert_eq!(field("attempts"), [1, 1, 0, 1]);
    assert_eq!(field("endpoint")[..3], ["BACKEND", "BACKEND", ""]);
    let path = "/pillion.test.Echo/Unary";
    assert_eq!(field("path"), [path, "/page", path, path]);
    assert!(field("duration_ms").iter().all(|millis| millis.as_f64().unwrap() > 0.0));
    assert!(field("time").iter().all(|time| time.as_str().unwrap().ends_with('Z')));
}

#[tokio::test]
async fn a_line_of_text_has_the_same_fields() {
    let log = log_of("text", 4).await;
    let first = log.lines().next().unwrap();
    for field in ["time=20", " service=echo ", " endpoint=BACKEND ", " status=OK ", " error=\"\""] {
        assert!(first.contains(field), "{field} is not in {first}");
    }
}

#[tokio::test]
async fn nothing_is_printed_unless_asked_for() {
    assert_eq!(log_of("off", 0).await, "");
}
