//! Mutual TLS: who is let in, who is believed, and what both ends are told.

use h2::client::Builder;

use crate::backend::Backend;
use crate::client::Client;
use crate::program::{Pillion, Program, endpoint};
use crate::tls::Authority;
use crate::tls_calls::{DAY, authority, listener, towards_endpoints};
use crate::tls_peer::{Pair, TlsFront, client_config, connect};
use crate::wait::until;

/// A proxy beside a server: it lets in who has one of these names, and hands calls on in plaintext.
pub(crate) async fn inbound(
    authority: &Authority,
    name: &str,
    allow: &str,
    backend: &Backend,
) -> Pillion {
    let pair = authority.sign_for("inbound", name);
    let more = format!("client_ca = {:?}\nallow = [{allow}]", authority.cert());
    let config = format!(
        "access_log = \"json\"\n{}\n[defaults]\nconnect_timeout = \"20s\"",
        listener(&pair, &more)
    );
    Program::new(&config).endpoints([backend.as_endpoint("echo")]).listen_by_config().start().await
}

/// A proxy beside an application, which speaks TLS to `inbound` as `pair`.
pub(crate) async fn outbound(
    authority: &Authority,
    pair: &Pair,
    verify: &str,
    inbound: &Pillion,
) -> Pillion {
    let (cert, key) = pair;
    let keys = format!("mode = \"on\"\ncert = {cert:?}\nkey = {key:?}\nverify = [{verify}]");
    let config = format!(
        "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\nconnection = \"pooled\"\n{}",
        towards_endpoints(&authority.cert(), &keys)
    );
    Pillion::start(&config, [endpoint("echo", inbound.address(), "")]).await
}

pub(crate) const SERVER: &str = "URI:spiffe://prod/ns/shop/sa/orders";
pub(crate) const CLIENT: &str = "URI:spiffe://prod/ns/shop/sa/cart";
pub(crate) const SHOP: &str = "\"spiffe://prod/ns/shop/*\"";

#[tokio::test]
async fn two_proxies_know_each_other_by_their_spiffe_names() {
    let (_folder, authority) = authority("ca");
    let backend = Backend::echo().await;
    let inbound = inbound(&authority, SERVER, SHOP, &backend).await;
    let me = authority.sign_for("me", CLIENT);
    let verify = "\"spiffe://prod/ns/shop/sa/orders\"";
    let outbound = outbound(&authority, &me, verify, &inbound).await;
    let answer = Client::connect(outbound.address()).await.call("echo").await;
    assert!(answer.is_ok(), "{answer:?}");
    let named = "\"peer\":\"spiffe://prod/ns/shop/sa/cart\"";
    until("the access log names the caller", async || inbound.output().contains(named)).await;
}

/// What a call through two proxies is told when the outer one has this certificate, or none, and the
/// reason that the inner one counts.
async fn refused_by_the_inner(me: Option<&Pair>, authority: &Authority) -> (String, String) {
    let backend = Backend::echo().await;
    let inner = inbound(authority, SERVER, SHOP, &backend).await;
    let verify = "verify = [\"spiffe://prod/ns/shop/sa/orders\"]";
    let identity =
        me.map_or_else(String::new, |(cert, key)| format!("cert = {cert:?}\nkey = {key:?}"));
    let keys = format!("mode = \"on\"\n{verify}\n{identity}");
    let config = format!(
        "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}",
        towards_endpoints(&authority.cert(), &keys)
    );
    let outer = Pillion::start(&config, [endpoint("echo", inner.address(), "")]).await;
    let answer = Client::connect(outer.address()).await.call("echo").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"));
    assert_eq!(backend.counts().calls, 0);
    until("the inner proxy says why", async || inner.log().contains("TLS: no connection")).await;
    let log = inner.log();
    let line = log.lines().find(|line| line.contains("TLS: no connection")).unwrap().to_owned();
    let metrics = outer.metrics().await;
    assert_eq!(metrics.sum("tls_handshake_failures_total", &[("side", "upstream")]), 1.0);
    (answer.header("grpc-message").unwrap().to_owned(), line)
}

#[tokio::test]
async fn a_caller_with_another_name_is_refused_and_both_ends_know_why() {
    let (_folder, authority) = authority("ca");
    let me = authority.sign_for("me", "URI:spiffe://prod/ns/bank/sa/cart");
    let (message, log) = refused_by_the_inner(Some(&me), &authority).await;
    assert!(message.contains("does not accept our certificate"), "{message}");
    assert!(message.contains("(peer_refused)"), "{message}");
    assert!(log.contains("reason=\"wrong_name\""), "{log}");
    assert!(
        log.contains("for spiffe://prod/ns/bank/sa/cart, not for spiffe://prod/ns/shop/*"),
        "{log}"
    );
}

#[tokio::test]
async fn a_caller_whose_certificate_has_expired_is_refused_and_both_ends_know_why() {
    let (_folder, authority) = authority("ca");
    let now = std::time::SystemTime::now();
    let me = authority.sign_between("me", CLIENT, now - 2 * DAY, now - DAY);
    let (message, log) = refused_by_the_inner(Some(&me), &authority).await;
    assert!(message.contains("says that our certificate has expired (peer_expired)"), "{message}");
    assert!(log.contains("reason=\"expired\""), "{log}");
}

#[tokio::test]
async fn a_caller_of_another_authority_is_refused_and_both_ends_know_why() {
    let (_folder, ca) = authority("ca");
    let (_other_folder, other) = authority("other");
    let me = other.sign_for("me", CLIENT);
    let (message, log) = refused_by_the_inner(Some(&me), &ca).await;
    assert!(message.contains("the authority of our certificate (peer_unknown_ca)"), "{message}");
    assert!(log.contains("reason=\"unknown_ca\""), "{log}");
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused_and_both_ends_know_why() {
    let (_folder, authority) = authority("ca");
    let (message, log) = refused_by_the_inner(None, &authority).await;
    assert!(message.contains("wants a certificate of ours"), "{message}");
    assert!(message.contains("(peer_wants_certificate)"), "{message}");
    assert!(log.contains("reason=\"no_certificate\""), "{log}");
}

#[tokio::test]
async fn an_endpoint_is_believed_by_its_spiffe_name_and_by_no_other() {
    let (_folder, authority) = authority("ca");
    let backend = Backend::echo().await;
    let pair = authority.sign_for("peer", SERVER);
    let front = TlsFront::start(backend.address(), &pair, None).await;
    for (verify, is_ok) in [
        ("spiffe://prod/ns/shop/sa/orders", true),
        ("spiffe://prod/ns/shop/*", true),
        ("spiffe://prod/ns/shop/sa/order", false),
        ("spiffe://dev/*", false),
    ] {
        let keys = format!("verify = [{verify:?}]");
        let config = format!(
            "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}",
            towards_endpoints(&authority.cert(), &keys)
        );
        let endpoints = [endpoint("echo", front.address(), "tls = true")];
        let pillion = Pillion::start(&config, endpoints).await;
        let answer = Client::connect(pillion.address()).await.call("echo").await;
        assert_eq!(answer.is_ok(), is_ok, "{verify}: {answer:?}");
    }
}

#[tokio::test]
async fn who_is_not_known_is_kept_out_before_a_byte_of_a_call_is_read() {
    let (_folder, authority) = authority("ca");
    let backend = Backend::echo().await;
    let pillion = inbound(&authority, "DNS:localhost", SHOP, &backend).await;
    let config = client_config(&authority.cert(), None, &[b"h2"]);
    // In TLS 1.3 a client learns of it after its own part is over.
    if let Ok(tls) = connect(pillion.address(), "localhost", config).await {
        let handshake = Builder::new().handshake::<_, bytes::Bytes>(tls).await;
        let (send, ended) = match handshake {
            Ok((send, connection)) => {
                (Some(send), crate::wait::soon("the end of the connection", connection).await)
            }
            Err(error) => (None, Err(error)),
        };
        let error = ended.unwrap_err().to_string();
        // What it had sent by then has the system reset the connection, which may overtake the alert. The system
        // says "Broken pipe", the library "broken pipe".
        let reset = ["reset", "roken pipe"].iter().any(|text| error.contains(text));
        assert!(error.contains("CertificateRequired") || reset, "{error}");
        drop(send);
    }
    assert_eq!(backend.counts().accepted, 0);
}
