//! The admin address: what operators and their tools read.

use std::io::Write;

use serde_json::json;

use crate::backend::{Backend, Incoming};
use crate::client::{Client, grpc};
use crate::program::{Pillion, Program, endpoint};

#[tokio::test]
async fn services_are_listed_with_their_endpoints() {
    let backend = Backend::start(Incoming::never).await;
    let address = backend.address();
    let endpoints = [
        endpoint("pay", "10.0.0.1:80".parse().unwrap(), "weight = 0"),
        backend.as_endpoint_with(
            "orders",
            "id = \"o1\"\nversion = \"v1\"\nzone = \"z1\"\nweight = 7\nmetadata = { gpu = \"yes\" }",
        ),
        endpoint("orders", "10.0.0.2:80".parse().unwrap(), "metadata = { state = \"forbidden\" }"),
        "[[endpoint]]\nservice = \"orders\"\naddress = \"no port\"\n".to_owned(),
    ];
    let pillion = Pillion::start("[defaults]\nfilter = \"version=v1\"", endpoints).await;
    let client = Client::connect(pillion.address()).await;
    let _open = client.begin(grpc("orders")).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;

    assert_eq!(
        pillion.get("/services").await.json(),
        json!({"services": [
            {"name": "orders", "endpoints": 2, "ready": 1, "sources": ["file"]},
            {"name": "pay", "endpoints": 1, "ready": 0, "sources": ["file"]},
        ]})
    );
    let mut orders = pillion.get("/services/orders").await.json();
    let endpoints = orders["endpoints"].as_array_mut().unwrap();
    endpoints.sort_by_key(|endpoint| endpoint["id"] != "o1");
    let key = endpoints[0]["key"].clone();
    assert!(key.is_string());
    assert_eq!(
        endpoints[0],
        json!({
            "address": address.to_string(), "id": "o1", "weight": 7, "version": "v1", "zone": "z1",
            "metadata": {"gpu": "yes"}, "source": "file", "format": "file", "key": key,
            "state": "ready", "reason": null, "in_flight": 1, "picks": 1,
        })
    );
    assert_eq!(endpoints[1]["state"], "forbidden");
    assert_eq!(endpoints.len(), 2);
    let rejected = orders["rejected"].as_array().unwrap();
    assert!(rejected[0]["reason"].as_str().unwrap().contains("no port"), "{rejected:?}");
    assert_eq!(orders["name"], "orders");
    assert!(orders["revision"].is_number());
    let pay = pillion.get("/services/pay").await.json();
    assert_eq!(pay["endpoints"][0]["state"], "drained");
    assert_eq!(pillion.get("/services/nowhere").await.status, 404);
    assert_eq!(pillion.get("/services/no%20name").await.status, 400);
}

#[tokio::test]
async fn why_tells_what_a_call_would_meet_stage_by_stage() {
    let endpoints = [("10.0.0.1:80", "v1", 1), ("10.0.0.2:80", "v2", 3), ("10.0.0.3:80", "v2", 1)]
        .map(|(address, version, weight)| {
            let keys =
                format!("version = \"{version}\"\nweight = {weight}\nid = \"n{weight}{version}\"");
            endpoint("orders", address.parse().unwrap(), &keys)
        });
    let config = "
        [[route]]
        authority = \"*.internal\"
        path_prefix = \"/orders.\"
        service = \"orders\"
        filter = \"version=v2\"
    ";
    let pillion = Pillion::start(config, endpoints).await;
    let why =
        pillion.get("/why?authority=orders.internal:80&path=/orders.v1.Orders/Get").await.json();
    assert_eq!(
        (&why["authority"], &why["service"], &why["verdict"]),
        (&json!("orders.internal:80"), &json!("orders"), &json!("ok"))
    );
    assert_eq!(
        why["candidates"],
        json!([
            {"address": "10.0.0.2:80", "weight": 3, "share": 0.75},
            {"address": "10.0.0.3:80", "weight": 1, "share": 0.25},
        ])
    );
    let steps = why["steps"].as_array().unwrap();
    assert_eq!(steps[0], json!({"stage": "known", "kept": 3, "dropped": []}));
    assert_eq!(steps[1]["kept"], 2);
    assert_eq!(steps[1]["dropped"][0]["address"], "10.0.0.1:80");
    for (query, verdict) in [
        ("authority=orders&filter=version%3Dv9", "no_match"),
        ("authority=orders&filter=version%20in%20(", "bad_filter"),
        ("authority=orders&node=unheard-of", "no_match"),
        ("authority=orders@n1v1", "ok"),
        ("authority=or:ders", "bad_authority"),
        ("authority=nowhere", "no_endpoints"),
        ("service=orders", "ok"),
        ("authority=x.internal&path=/other", "no_endpoints"),
    ] {
        let page = pillion.get(&format!("/why?{query}")).await;
        assert_eq!((page.status, page.json()["verdict"].as_str()), (200, Some(verdict)), "{query}");
    }
    assert_eq!(pillion.get("/why").await.status, 400);
}

#[tokio::test]
async fn the_program_is_live_at_once_and_ready_when_its_sources_have_been_read() {
    let pillion = Pillion::start("", []).await;
    assert_eq!(pillion.get("/live").await.status, 200);
    assert_eq!(pillion.get("/ready").await.text, "ready\n");
    // A file that is not there yet.
    let config = "[[source]]\nkind = \"file\"\nname = \"late\"\npath = \"late.toml\"";
    let pillion = Program::new(config).start_unready().await;
    assert_eq!(pillion.get("/live").await.status, 200);
    let ready = pillion.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("source late"), "{}", ready.text);
    std::fs::write(pillion.path("late.toml"), "").unwrap();
    crate::wait::until("it is ready", async || pillion.get("/ready").await.status == 200).await;
}

#[tokio::test]
async fn the_log_level_changes_while_the_program_runs() {
    let pillion = Pillion::start("", []).await;
    assert_eq!(pillion.ask("PUT", "/log?level=debug").await.status, 200);
    crate::wait::until("something is logged at the new level", async || {
        // What does not speak HTTP/2 is worth a line for whoever debugs.
        let tcp = tokio::net::TcpStream::connect(pillion.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut { tcp }, b"not HTTP/2, but long enough")
            .await
            .unwrap();
        pillion.log().contains("DEBUG")
    })
    .await;
    let wrong = pillion.ask("PUT", "/log?level=loud").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("debug"), "{}", wrong.text);
    assert_eq!(pillion.get("/log?level=debug").await.status, 405);
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let mut password = tempfile::NamedTempFile::new().unwrap();
    password.write_all(b"open-sesame").unwrap();
    let config = format!(
        "
        [defaults]
        attempts = 5
        [[source]]
        endpoints = [\"http://127.0.0.1:1\"]
        username = \"reader\"
        password_file = {:?}
    ",
        password.path()
    );
    let pillion = Program::new(&config).start_unready().await;
    let page = pillion.get("/config").await;
    assert!(page.head.contains("application/json"), "{}", page.head);
    let shown = page.json();
    assert_eq!(shown["defaults"]["attempts"], 5);
    assert_eq!(shown["defaults"]["balance"], "p2c");
    assert_eq!(shown["source"][0]["username"], "reader");
    assert!(!page.text.contains("open-sesame"), "{}", page.text);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_says_what_is() {
    let pillion = Pillion::start("", []).await;
    let page = pillion.get("/nothing").await;
    assert_eq!(page.status, 404);
    assert!(page.json()["error"].as_str().unwrap().contains("/metrics"));
    assert_eq!(pillion.ask("POST", "/metrics").await.status, 405);
}
