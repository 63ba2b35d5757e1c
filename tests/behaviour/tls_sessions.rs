//! Handshakes that go on from an earlier session, and those that come to no end.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Backend;
use crate::client::{Answer, Client};
use crate::metrics::Metrics;
use crate::program::{Pillion, Program, endpoint};
use crate::tls_calls::{authority, listener, towards_endpoints};
use crate::tls_peer::{TlsFront, client_config, connect};
use crate::wait::until;

/// Handshakes with endpoints: full ones, and those that went on from an earlier session.
fn upstream(metrics: &Metrics) -> (f64, f64) {
    let count = |resumed| {
        metrics.sum("tls_handshakes_total", &[("side", "upstream"), ("resumed", resumed)])
    };
    (count("no"), count("yes"))
}

#[tokio::test]
async fn fresh_connections_go_on_from_the_session_of_the_first_and_lose_nothing() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("echo", "DNS:echo");
    let backend = Backend::echo().await;
    let front = TlsFront::start(backend.address(), &pair, None).await;
    for ready in ["settings", "tcp"] {
        let before = front.seen();
        let config = format!(
            "[defaults]\nconnection = \"fresh\"\nconnect_timeout = \"30s\"\nready = \"{ready}\"\n{}",
            towards_endpoints(&authority.cert(), "")
        );
        let pillion =
            Pillion::start(&config, [endpoint("echo", front.address(), "tls = true")]).await;
        let client = Client::connect(pillion.address()).await;
        for _ in 0..50 {
            assert!(client.call("echo").await.is_ok());
        }
        let seen = front.seen();
        assert_eq!((seen.full - before.full, seen.resumed - before.resumed), (1, 49), "{ready}");
        assert_eq!(upstream(&pillion.metrics().await), (1.0, 49.0), "{ready}");
        // Many at once need many tickets, which come with time.
        for _ in 0..10 {
            let answers = join_all((0..50).map(|_| client.call("echo"))).await;
            assert!(answers.iter().all(Answer::is_ok));
        }
        let (full, resumed) = upstream(&pillion.metrics().await);
        assert!(full + resumed == 550.0 && resumed > 400.0, "{ready}: {full} {resumed}");
    }
}

#[tokio::test]
async fn endpoints_of_one_service_each_have_sessions_of_their_own() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("echo", "DNS:echo");
    let backend = Backend::echo().await;
    let fronts = [
        TlsFront::start(backend.address(), &pair, None).await,
        TlsFront::start(backend.address(), &pair, None).await,
        TlsFront::start(backend.address(), &pair, None).await,
    ];
    let config = format!(
        "[defaults]\nconnect_timeout = \"30s\"\nbalance = \"round_robin\"\n{}",
        towards_endpoints(&authority.cert(), "")
    );
    let endpoints = fronts.each_ref().map(|front| endpoint("echo", front.address(), "tls = true"));
    let pillion = Pillion::start(&config, endpoints).await;
    let client = Client::connect(pillion.address()).await;
    for _ in 0..30 {
        assert!(client.call("echo").await.is_ok());
    }
    for front in &fronts {
        let seen = front.seen();
        assert_eq!((seen.full, seen.resumed), (1, 9));
    }
}

/// How the handshake of a client went that has connected before.
async fn kind(pillion: &Pillion, config: &ClientConfig) -> HandshakeKind {
    let tls = connect(pillion.address(), "localhost", config.clone()).await.unwrap();
    let kind = tls.get_ref().1.handshake_kind().unwrap();
    // The ticket comes after the handshake, before the first answer at the latest.
    let client = Client::over(tls, &h2::client::Builder::new()).await;
    let _ = client.send(crate::client::grpc("nobody"), b"").await;
    kind
}

#[tokio::test]
async fn applications_go_on_from_a_session_on_any_worker_until_other_authorities_are_believed() {
    let (folder, authority) = authority("ca");
    let bundle = folder.path().join("bundle.pem");
    std::fs::copy(authority.cert(), &bundle).unwrap();
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let pillion = Program::new(&listener(&pair, &format!("client_ca = {bundle:?}")))
        .endpoints([])
        .listen_by_config()
        .start()
        .await;
    let me = authority.sign_for("me", "DNS:me");
    let config = client_config(&authority.cert(), Some(&me), &[b"h2"]);
    assert_eq!(kind(&pillion, &config).await, HandshakeKind::Full);
    for _ in 0..10 {
        assert_eq!(kind(&pillion, &config).await, HandshakeKind::Resumed);
    }
    let (_other_folder, other) = crate::tls_calls::authority("other");
    let both = [std::fs::read(other.cert()).unwrap(), std::fs::read(authority.cert()).unwrap()];
    std::fs::write(&bundle, both.concat()).unwrap();
    let reads = |m: &Metrics| m.sum("tls_reloads_total", &[("result", "ok")]) >= 1.0;
    pillion.until_metrics("it is read", reads).await;
    assert_eq!(kind(&pillion, &config).await, HandshakeKind::Full);
    assert_eq!(kind(&pillion, &config).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_cut_off_and_keeps_nobody_from_a_handshake() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let listener = listener(&pair, "[listener.limits]\nheader_timeout = \"3s\"");
    let pillion = Program::new(&listener).endpoints([]).listen_by_config().start().await;
    let silent = join_all((0..300).map(|_| TcpStream::connect(pillion.address()))).await;
    let config = client_config(&authority.cert(), None, &[b"h2"]);
    assert_eq!(kind(&pillion, &config).await, HandshakeKind::Full);
    let timeout = [("side", "downstream"), ("reason", "timeout")];
    let is_counted = |m: &Metrics| m.sum("tls_handshake_failures_total", &timeout) == 300.0;
    pillion.until_metrics("all are cut off", is_counted).await;
    drop(silent);
}

#[tokio::test]
async fn an_endpoint_that_never_ends_its_handshake_is_given_up_in_time_for_another() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("echo", "DNS:echo");
    let backend = Backend::echo().await;
    let front = TlsFront::start(backend.address(), &pair, None).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[defaults]\nconnect_timeout = \"3s\"\nfilter = \"version=first;\"\neject.max_share = 0.0\n{}",
        towards_endpoints(&authority.cert(), "")
    );
    let endpoints = [
        endpoint("echo", silent.local_addr().unwrap(), "tls = true\nversion = \"first\""),
        endpoint("echo", front.address(), "tls = true"),
    ];
    let pillion = Pillion::start(&config, endpoints).await;
    assert!(Client::connect(pillion.address()).await.call("echo").await.is_ok());
    let outcome = [("service", "echo"), ("outcome", "connect_timeout")];
    assert_eq!(pillion.metrics().await.sum("attempts_total", &outcome), 1.0);
}

#[tokio::test]
async fn calls_go_on_while_many_shake_hands() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let backend = Backend::echo().await;
    let pillion = Program::new(&listener(&pair, "[defaults]\nconnect_timeout = \"30s\""))
        .endpoints([backend.as_endpoint("echo")])
        .listen_by_config()
        .start()
        .await;
    let config = client_config(&authority.cert(), None, &[b"h2"]);
    let tls = connect(pillion.address(), "localhost", config.clone()).await.unwrap();
    let bystander = Arc::new(Client::over(tls, &h2::client::Builder::new()).await);
    let shaking = tokio::spawn({
        let address = pillion.address();
        async move {
            for _ in 0..5 {
                // Each without a session.
                let all = (0..100).map(|_| {
                    let mut config = config.clone();
                    config.resumption = rustls::client::Resumption::disabled();
                    connect(address, "localhost", config)
                });
                assert!(join_all(all).await.iter().all(Result::is_ok));
            }
        }
    });
    let mut calls = 0;
    while !shaking.is_finished() {
        assert!(bystander.call("echo").await.is_ok());
        calls += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shaking.await.unwrap();
    assert!(calls > 0);
    let full = [("side", "downstream"), ("resumed", "no")];
    until("all are counted", async || {
        pillion.metrics().await.sum("tls_handshakes_total", &full) == 501.0
    })
    .await;
}
