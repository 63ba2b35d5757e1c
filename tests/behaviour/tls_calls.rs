//! TLS towards applications and towards endpoints.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use h2::client::Builder;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::client::Client;
use crate::program::{Pillion, Program, endpoint};
use crate::tls::Authority;
use crate::tls_peer::{Pair, TlsFront, client_config, connect, server_config};
use crate::wait::until;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority in a folder of its own.
pub(crate) fn authority(name: &str) -> (TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), name);
    (folder, authority)
}

/// A listener that speaks TLS with this certificate.
pub(crate) fn listener((cert, key): &Pair, more: &str) -> String {
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncert = {cert:?}\nkey = {key:?}\n{more}\n"
    )
}

pub(crate) fn towards_endpoints(ca: &Path, more: &str) -> String {
    format!("[defaults.tls]\nca = {ca:?}\n{more}\n")
}

/// A proxy whose only endpoint of `echo` is at `address`, with these keys.
async fn proxy(config: &str, address: SocketAddr, keys: &str) -> Pillion {
    Pillion::start(config, [endpoint("echo", address, keys)]).await
}

/// Status, reason and message of a call that fails.
async fn refusal(pillion: &Pillion) -> (String, String) {
    let answer = Client::connect(pillion.address()).await.call("echo").await;
    assert_eq!(answer.grpc_status(), Some(14));
    let header = |name| answer.header(name).unwrap_or_default().to_owned();
    (header("pillion-error"), header("grpc-message").replace("%22", "\""))
}

#[tokio::test]
async fn a_call_reaches_an_endpoint_whose_record_says_tls_on_every_kind_of_connection() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("orders", "DNS:echo");
    let backend = Backend::echo().await;
    let front = TlsFront::start(backend.address(), &pair, None).await;
    for connection in ["fresh", "warm", "pooled"] {
        for ready in ["settings", "tcp"] {
            let config = format!(
                "[defaults]\nconnect_timeout = \"20s\"\nconnection = \"{connection}\"\nready = \"{ready}\"\n{}",
                towards_endpoints(&authority.cert(), "")
            );
            let pillion = proxy(&config, front.address(), "tls = true").await;
            let client = Client::connect(pillion.address()).await;
            for _ in 0..5 {
                assert!(client.call("echo").await.is_ok(), "{connection} {ready}");
            }
        }
    }
}

#[tokio::test]
async fn no_record_turns_tls_off_where_the_policy_says_on() {
    let backend = Backend::echo().await;
    let config =
        "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n[defaults.tls]\nmode = \"on\"";
    let (_folder, authority) = authority("ca");
    let config = format!("{config}\nca = {:?}", authority.cert());
    let pillion = proxy(&config, backend.address(), "tls = false").await;
    let (reason, message) = refusal(&pillion).await;
    assert_eq!(reason, "connect_failed", "{message}");
    assert_eq!(backend.counts().calls, 0, "nothing was said in plaintext");
    let pair = authority.sign_for("echo", "DNS:echo");
    let front = TlsFront::start(backend.address(), &pair, None).await;
    pillion.set_endpoints([endpoint("echo", front.address(), "tls = false")]).await;
    assert!(Client::connect(pillion.address()).await.call("echo").await.is_ok());
}

#[tokio::test]
async fn a_policy_can_say_that_endpoints_speak_plaintext_whatever_their_records_say() {
    let backend = Backend::echo().await;
    let pillion = proxy("[defaults.tls]\nmode = \"off\"", backend.address(), "tls = true").await;
    assert!(Client::connect(pillion.address()).await.call("echo").await.is_ok());
}

#[tokio::test]
async fn an_application_calls_by_tls() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let backend = Backend::echo().await;
    let pillion = Program::new(&listener(&pair, ""))
        .endpoints([backend.as_endpoint("echo")])
        .listen_by_config()
        .start()
        .await;
    let config = client_config(&authority.cert(), None, &[b"h2"]);
    let tls = connect(pillion.address(), "localhost", config).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(tls.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(Client::over(tls, &Builder::new()).await.call("echo").await.is_ok());
    let metrics = pillion.metrics().await;
    let full = [("side", "downstream"), ("resumed", "no")];
    assert_eq!(metrics.sum("tls_handshakes_total", &full), 1.0);
}

#[tokio::test]
async fn an_application_that_does_not_agree_on_http_2_is_told_so() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let pillion = Program::new(&listener(&pair, "")).endpoints([]).listen_by_config().start().await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let config = client_config(&authority.cert(), None, protocols);
        let error = connect(pillion.address(), "localhost", config).await.unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    }
    let no_alpn = [("side", "downstream"), ("reason", "no_alpn")];
    let is_counted =
        |m: &crate::metrics::Metrics| m.sum("tls_handshake_failures_total", &no_alpn) == 2.0;
    pillion.until_metrics("both are counted", is_counted).await;
    pillion.until_logged("reason=\"no_alpn\"").await;
}

#[tokio::test]
async fn plaintext_on_a_listener_of_tls_is_refused_and_told_apart() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let pillion = Program::new(&listener(&pair, "")).endpoints([]).listen_by_config().start().await;
    let mut tcp = tokio::net::TcpStream::connect(pillion.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut tcp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let not_tls = [("side", "downstream"), ("reason", "not_tls")];
    let is_counted =
        |m: &crate::metrics::Metrics| m.sum("tls_handshake_failures_total", &not_tls) == 1.0;
    pillion.until_metrics("it is counted", is_counted).await;
}

/// What a call is told when its only endpoint has this certificate of an authority, or of another one.
async fn refusal_of(
    names: &str,
    expired: Option<SystemTime>,
    of_other: bool,
    keys: &str,
) -> (String, Vec<String>) {
    let (_folder, ca) = authority("ca");
    let (_other_folder, other) = authority("other");
    let signer = if of_other { &other } else { &ca };
    let pair = match expired {
        Some(on) => signer.sign_between("peer", names, on - DAY, on),
        None => signer.sign_for("peer", names),
    };
    let backend = Backend::echo().await;
    let front = TlsFront::start(backend.address(), &pair, None).await;
    let config = format!(
        "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}",
        towards_endpoints(&ca.cert(), keys)
    );
    let pillion = proxy(&config, front.address(), "tls = true").await;
    let (reason, message) = refusal(&pillion).await;
    assert_eq!(reason, "connect_failed", "{message}");
    assert_eq!(backend.counts().calls, 0);
    until("the endpoint is told", async || !front.seen().failed.is_empty()).await;
    (message, front.seen().failed)
}

#[tokio::test]
async fn an_endpoint_for_another_name_is_refused_and_both_ends_know_why() {
    let (message, told) = refusal_of("DNS:stranger,IP:127.0.0.1", None, false, "").await;
    assert!(
        message.contains("its certificate is for stranger, 127.0.0.1, not for echo"),
        "{message}"
    );
    assert!(message.contains("(wrong_name)"), "{message}");
    assert!(told[0].contains("CertificateUnknown"), "{told:?}");
}

#[tokio::test]
async fn an_endpoint_whose_certificate_has_expired_is_refused_and_both_ends_know_why() {
    let on = SystemTime::UNIX_EPOCH + 18_263 * DAY;
    let (message, told) = refusal_of("DNS:echo", Some(on), false, "").await;
    assert!(
        message.contains("its certificate expired on 2020-01-02T00:00:00Z (expired)"),
        "{message}"
    );
    assert!(told[0].contains("CertificateExpired"), "{told:?}");
}

#[tokio::test]
async fn an_endpoint_of_another_authority_is_refused_and_both_ends_know_why() {
    let (message, told) = refusal_of("DNS:echo", None, true, "").await;
    assert!(message.contains("no authority that is believed here (unknown_ca)"), "{message}");
    assert!(told[0].contains("UnknownCA"), "{told:?}");
}

#[tokio::test]
async fn an_endpoint_that_agrees_on_no_http_2_is_refused() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("echo", "DNS:echo");
    let backend = Backend::echo().await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let config = server_config(&pair, None, protocols);
        let front = TlsFront::start_with(backend.address(), config).await;
        let config = format!(
            "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}",
            towards_endpoints(&authority.cert(), "")
        );
        let pillion = proxy(&config, front.address(), "tls = true").await;
        let (_, message) = refusal(&pillion).await;
        assert!(
            message.contains("HTTP/2 by ALPN (\"h2\")") && message.contains("(no_alpn)"),
            "{message}"
        );
    }
    assert_eq!(backend.counts().calls, 0);
}
