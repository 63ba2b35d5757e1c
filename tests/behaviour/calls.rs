//! The calls of late that failed or were slow, as operators read them.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle, time::sleep};

use crate::backend::{Backend, Incoming};
use crate::client::{Client, get, grpc, grpc_with};
use crate::commands::text;
use crate::errors::refusing;
use crate::ledger::slow_to_connect;
use crate::program::{Pillion, endpoint};
use crate::retry_policy::{UNAVAILABLE, failing};
use crate::wait::{soon, until};

/// What `GET /calls` answers once there are so many.
pub(crate) async fn until_calls(pillion: &Pillion, query: &str, number: usize) -> Value {
    let mut page = Value::Null;
    until("the calls are recorded", async || {
        page = pillion.get(&format!("/calls{query}")).await.json();
        page["calls"].as_array().unwrap().len() >= number
    })
    .await;
    page
}

fn field<'a>(page: &'a Value, name: &str) -> Vec<&'a str> {
    page["calls"].as_array().unwrap().iter().map(|call| call[name].as_str().unwrap()).collect()
}

/// Lines of an answer that goes on.
struct Lines {
    body: hyper::body::Incoming,
    pending: BytesMut,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Lines {
    async fn of(pillion: &Pillion, path: &str) -> Self {
        let (status, lines) = Self::ask(pillion, path).await;
        assert_eq!(status, 200);
        lines
    }

    async fn ask(pillion: &Pillion, path: &str) -> (u16, Self) {
        let stream = TcpStream::connect(pillion.admin()).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "admin").body(Empty::<Bytes>::new());
        let answer = soon("an answer", send.send_request(request.unwrap())).await.unwrap();
        let status = answer.status().as_u16();
        (status, Self { body: answer.into_body(), pending: BytesMut::new(), connection })
    }

    /// The next one; none at a clean end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                return serde_json::from_slice(&self.pending.split_to(end)).ok().inspect(
                    |_: &Value| {
                        self.pending = self.pending.split_off(1);
                    },
                );
            }
            let frame = soon("a line", self.body.frame()).await?.unwrap();
            self.pending.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Closes the socket.
        self.connection.abort();
    }
}

#[tokio::test]
async fn a_failed_call_is_told_with_all_that_was_decided_for_it() {
    let dead = refusing().await;
    let config = "
        [defaults]
        slow_call = \"1m\"
        [[route]]
        authority = \"orders.internal\"
        service = \"orders\"
        filter = \"version=v1\"
    ";
    let pillion = Pillion::start(config, [endpoint("orders", dead, "version = \"v1\"")]).await;
    let client = Client::connect(pillion.address()).await;
    let secret = [("authorization", "Bearer hunter2"), ("grpc-timeout", "30S")];
    let answer = client.send(grpc_with("orders.internal:80", &secret), b"").await.unwrap();
    let page = until_calls(&pillion, "", 1).await;
    let call = &page["calls"][0];
    for (name, value) in [
        ("service", "orders"),
        ("authority", "orders.internal:80"),
        ("path", "/pillion.test.Echo/Unary"),
        ("kind", "grpc"),
        ("status", "UNAVAILABLE"),
        ("error", "connect_failed"),
        ("message", answer.header("grpc-message").unwrap()),
        ("route", "#1"),
        ("filter", "version=v1"),
        ("filter_of", "policy"),
        ("balance", "p2c"),
    ] {
        assert_eq!(call[name], value, "{name} of {call}");
    }
    assert_eq!(call["deadline_ms"], 30_000.0);
    assert_eq!(call["slow"], false);
    let attempt = &call["spent"]["attempts"][0];
    assert_eq!(attempt["endpoint"], dead.to_string());
    assert_eq!(attempt["outcome"], "connect_failed");
    assert!(attempt["connect_ms"].as_f64().unwrap() > 0.0, "{call}");
    assert!(call["time"].as_str().unwrap().ends_with('Z'));
    assert!(!call.to_string().contains("hunter2"), "{call}");
    assert_eq!(
        (&page["matching"], &page["kept"], &page["left_out"]),
        (&1.into(), &1.into(), &0.into())
    );
}

#[tokio::test]
async fn a_call_that_never_had_an_endpoint_is_told_too() {
    let config = "
        [[route]]
        authority = \"closed\"
        respond = { grpc_status = \"PERMISSION_DENIED\", message = \"closed today\" }
    ";
    let backend = Backend::echo().await;
    let pillion = Pillion::start(config, [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    client.call("nowhere").await;
    until_calls(&pillion, "", 1).await;
    client.call("closed").await;
    until_calls(&pillion, "", 2).await;
    client.send(grpc_with("echo", &[("pillion-filter", "a==b==c")]), b"").await.unwrap();
    until_calls(&pillion, "", 3).await;
    client.send(grpc_with("echo@other", &[("pillion-filter", "version=v1")]), b"").await.unwrap();
    let page = until_calls(&pillion, "", 4).await;
    assert_eq!(
        field(&page, "error"),
        ["no_endpoints", "direct_response", "bad_filter", "no_match"]
    );
    assert_eq!(field(&page, "service"), ["nowhere", "", "", "echo"]);
    assert_eq!(page["calls"][1]["route"], "#1");
    assert_eq!(page["calls"][1]["message"], "closed today");
    let pinned = &page["calls"][3];
    assert_eq!((&pinned["node"], &pinned["authority"]), (&"other".into(), &"echo@other".into()));
    assert_eq!((&pinned["filter"], &pinned["filter_of"]), (&"version=v1".into(), &"caller".into()));
}

/// `orders` is slow to connect and calls of it are slow from 50 ms on; those of `streams` never are, and those of
/// `quick` would be on no machine.
async fn one_slow_one_not(backend: SocketAddr) -> Pillion {
    let slow = slow_to_connect(backend, Duration::from_millis(100)).await;
    let config = "
        [service.orders]
        slow_call = \"50ms\"
        [service.streams]
        slow_call = \"0s\"
        [service.quick]
        slow_call = \"1m\"
    ";
    let endpoints = ["orders", "streams", "quick"].map(|service| match service {
        "quick" => endpoint(service, backend, ""),
        _ => endpoint(service, slow, ""),
    });
    Pillion::start(config, endpoints).await
}

#[tokio::test]
async fn a_call_is_slow_when_its_answer_takes_longer_to_begin_than_its_service_allows() {
    let backend = Backend::echo().await;
    let pillion = one_slow_one_not(backend.address()).await;
    let client = Client::connect(pillion.address()).await;
    for service in ["streams", "quick", "orders"] {
        assert!(client.call(service).await.is_ok());
    }
    let page = until_calls(&pillion, "", 1).await;
    assert_eq!(field(&page, "service"), ["orders"]);
    let call = &page["calls"][0];
    assert_eq!(
        (&call["status"], &call["error"], &call["slow"]),
        (&"OK".into(), &"".into(), &true.into())
    );
    assert!(call["waited_ms"].as_f64().unwrap() >= 100.0, "{call}");
    assert!(call["spent"]["attempts"][0]["connect_ms"].as_f64().unwrap() >= 100.0, "{call}");
}

#[tokio::test]
async fn a_stream_that_began_in_time_is_not_slow_however_long_it_takes() {
    let backend = Backend::start(|mut call: Incoming| async move {
        let mut answer = call.begin();
        sleep(Duration::from_millis(300)).await;
        let _ = answer.send_trailers(crate::backend::trailers(0));
    })
    .await;
    let config = "[defaults]\nslow_call = \"250ms\"\nconnection = \"pooled\"";
    let pillion = Pillion::start(config, [backend.as_endpoint("streams")]).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("streams").await.is_ok());
    client.call("nowhere").await;
    let page = until_calls(&pillion, "", 1).await;
    let streams = page["calls"].as_array().unwrap().iter().find(|c| c["service"] == "streams");
    // On a machine so busy that even the head took that long: that is told, and the rest is not in it.
    assert!(
        streams.is_none_or(|call| {
            let ms = |part: &str| call[part].as_f64().unwrap();
            ms("waited_ms") >= 250.0 && ms("duration_ms") - ms("waited_ms") >= 290.0
        }),
        "{page}"
    );
}

#[tokio::test]
async fn calls_are_chosen_by_service_status_error_path_and_time() {
    let backend = Backend::echo().await;
    let pillion = one_slow_one_not(backend.address()).await;
    let client = Client::connect(pillion.address()).await;
    assert!(client.call("orders").await.is_ok());
    client.call("nowhere").await;
    client.send(get("nowhere"), b"").await.unwrap();
    until_calls(&pillion, "", 3).await;
    let number = async |query: &str| {
        let page = pillion.get(&format!("/calls?{query}")).await.json();
        page["matching"].as_u64().unwrap()
    };
    for (query, expected) in [
        ("service=orders", 1),
        ("service=order", 0),
        ("status=UNAVAILABLE", 1),
        ("status=unavailable", 1),
        ("status=14", 1),
        ("status=503", 1),
        ("status=OK", 1),
        ("error=no_endpoints", 2),
        ("error=no_endpoints&status=503", 1),
        ("error=draining", 0),
        ("path=/pillion.test.", 2),
        ("path=%2Fpage", 1),
        ("slower=60ms&service=orders", 1),
        ("slower=1h", 0),
        ("service=&status=", 3),
    ] {
        assert_eq!(number(query).await, expected, "{query}");
    }
    let last = pillion.get("/calls?limit=1").await.json();
    assert_eq!((field(&last, "path"), &last["matching"]), (vec!["/page"], &3.into()));
}

#[tokio::test]
async fn a_question_that_can_match_nothing_is_refused_with_what_may_be_asked() {
    let pillion = Pillion::start("", []).await;
    for (query, expected) in [
        (
            "servise=orders",
            "unknown parameter \"servise\"; allowed: service, status, error, path, slower, limit, follow",
        ),
        ("status=FINE", "status: found \"FINE\", allowed: OK, CANCELLED, "),
        ("status=42", "status: found \"42\""),
        ("error=broken", "error: found \"broken\", allowed: bad_request, "),
        ("slower=soon", "slower: found \"soon\", allowed: a duration"),
        ("limit=0", "limit: found \"0\", allowed: 1 to 1024"),
        ("limit=1025&follow", "limit: found \"1025\""),
    ] {
        let page = pillion.get(&format!("/calls?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        let error = page.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(expected), "{query}: {error}");
    }
    assert_eq!(pillion.ask("POST", "/calls").await.status, 405);
}

#[tokio::test]
async fn calls_are_followed_as_they_end_until_the_proxy_has_drained() {
    let never = Backend::start(Incoming::never).await;
    let mut pillion = Pillion::start("", [never.as_endpoint("never")]).await;
    let client = Client::connect(pillion.address()).await;
    client.call("before").await;
    until_calls(&pillion, "", 1).await;
    let mut all = Lines::of(&pillion, "/calls?follow&limit=1").await;
    let mut some = Lines::of(&pillion, "/calls?follow&service=second").await;
    assert_eq!(all.next().await.unwrap()["service"], "before");
    for service in ["first", "second"] {
        client.call(service).await;
        assert_eq!(all.next().await.unwrap()["service"], service);
    }
    assert_eq!(some.next().await.unwrap()["service"], "second");
    // The last call to end is told before the end.
    let mut call = client.begin(grpc("never")).await;
    never.until("the call has come", |counts| counts.calls == 1).await;
    pillion.signal(Signal::TERM);
    until("it drains", async || pillion.get("/ready").await.status == 503).await;
    call.body.send_reset(h2::Reason::CANCEL);
    let last = all.next().await.unwrap();
    assert_eq!((&last["service"], &last["error"]), (&"never".into(), &"cancelled".into()));
    drop(client);
    assert_eq!((all.next().await, some.next().await), (None, None));
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn a_flood_of_calls_that_fail_alike_is_sampled_and_hides_no_other() {
    let backend = Backend::echo().await;
    let pillion = Pillion::start("", [backend.as_endpoint("echo")]).await;
    let client = Client::connect(pillion.address()).await;
    client.send(grpc_with("echo", &[("pillion-filter", "none=yes")]), b"").await.unwrap();
    until_calls(&pillion, "", 1).await;
    let began = std::time::Instant::now();
    for _ in 0..40 {
        let calls = (0..50).map(|_| client.send(grpc("nowhere"), b""));
        futures_util::future::join_all(calls).await;
    }
    let all = 2_001_u32;
    pillion
        .until_metrics("all calls are over", |metrics| {
            metrics.sum("requests_total", &[]) == f64::from(all)
        })
        .await;
    let mut page = Value::Null;
    until("each call is kept or left out", async || {
        page = pillion.get("/calls?limit=1024").await.json();
        page["kept"].as_u64().unwrap() + page["left_out"].as_u64().unwrap() == u64::from(all)
    })
    .await;
    let calls = page["calls"].as_array().unwrap();
    assert_eq!(calls[0]["error"], "no_match", "the first one, which failed otherwise, is there");
    // 10 a second, on the one worker that has the connection, in the first and the last second too; and the other.
    let most = 10 * (2 + began.elapsed().as_secs() as usize) + 1;
    assert!(calls.len() <= most, "{} of {all} are kept", calls.len());
    let told: u64 = calls.iter().filter_map(|call| call["left_out"].as_u64()).sum();
    assert!(
        told <= page["left_out"].as_u64().unwrap(),
        "those after the last one are not told yet"
    );
}

#[tokio::test]
async fn long_names_are_cut_and_what_is_kept_has_a_bound() {
    let pillion = Pillion::start("", []).await;
    let client = Client::connect(pillion.address()).await;
    let path = format!("http://nowhere/{}?token=hunter2", "x".repeat(40_000));
    client.send(http::Request::get(&path).body(()).unwrap(), b"").await.unwrap();
    let page = until_calls(&pillion, "", 1).await;
    let told = field(&page, "path")[0];
    assert_eq!((told.chars().count(), told.chars().last()), (257, Some('…')));
    assert!(!page.to_string().contains("hunter2"), "queries may hold secrets: {page}");
}

#[tokio::test]
async fn as_many_follow_as_may_and_the_next_one_is_told() {
    let pillion = Pillion::start("", []).await;
    let mut following = Vec::new();
    for _ in 0..16 {
        following.push(Lines::of(&pillion, "/calls?follow").await);
    }
    let (status, mut refused) = Lines::ask(&pillion, "/calls?follow").await;
    assert_eq!(status, 503);
    let error = refused.next().await.unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("16 follow already"), "{error}");
    following.pop();
    until("a place is free", async || Lines::ask(&pillion, "/calls?follow").await.0 == 200).await;
}

#[tokio::test]
async fn the_command_shows_calls_as_a_table_as_a_whole_and_as_they_come() {
    let dead = refusing().await;
    let pillion = Pillion::start("", [endpoint("orders", dead, "")]).await;
    let client = Client::connect(pillion.address()).await;
    let admin = format!("--admin=http://{}", pillion.admin());
    assert_eq!(text(&["calls", &admin]).await, "No such call is remembered.\n");
    client.call("orders").await;
    until_calls(&pillion, "", 1).await;
    client.call("nowhere").await;
    until_calls(&pillion, "", 2).await;
    let table = text(&["calls", &admin]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("TIME ") && lines[0].contains("  SERVICE "), "{table}");
    assert!(lines[1].contains(" orders ") && lines[1].ends_with(&dead.to_string()), "{table}");
    assert!(lines[2].contains(" nowhere ") && lines[2].contains(" no_endpoints "), "{table}");
    let last = text(&["calls", &admin, "-n", "1"]).await;
    assert!(
        last.contains("nowhere") && last.ends_with("\n1 call before these: see --limit\n"),
        "{last}"
    );
    let whole = text(&["calls", &admin, "--error", "connect_failed", "--long"]).await;
    for line in [
        "  /pillion.test.Echo/Unary  UNAVAILABLE  connect_failed  ",
        "\n  message    service orders: ",
        &format!("\n  attempt 1  {dead}  connect_failed  connect "),
    ] {
        assert!(whole.contains(line), "{line:?} is not in {whole}");
    }
    assert!(!whole.contains("nowhere"), "{whole}");
    let json = text(&["calls", &admin, "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(field(&json, "service"), ["orders", "nowhere"]);
}

#[tokio::test]
async fn the_whole_of_a_call_tells_what_each_attempt_was_answered_and_why_no_other_followed() {
    let failing = failing(UNAVAILABLE, &[]).await;
    let config = "[defaults.retry]\non = [\"unavailable\"]";
    let pillion = Pillion::start(config, [failing.as_endpoint("orders")]).await;
    let client = Client::connect(pillion.address()).await;
    assert_eq!(client.call("orders").await.grpc_status(), Some(UNAVAILABLE));
    until_calls(&pillion, "", 1).await;
    let admin = format!("--admin=http://{}", pillion.admin());
    let whole = text(&["calls", &admin, "--long"]).await;
    for line in [
        "\n  no retry   no_endpoint\n",
        &format!("\n  attempt 1  {}  ok UNAVAILABLE  connect ", failing.address()),
    ] {
        assert!(whole.contains(line), "{line:?} is not in {whole}");
    }
}
