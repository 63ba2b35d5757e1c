//! TLS as others speak it: grpcio as client and as server, and openssl's `s_client`.

use std::process::{Command, Stdio};

use crate::backend::Backend;
use crate::interop::expected_by_python;
use crate::program::{Pillion, Program, endpoint};
use crate::python::{PythonServer, call_in_every_way_with};
use crate::tls_calls::{authority, listener, towards_endpoints};
use crate::tls_peer::Pair;

#[tokio::test]
async fn grpcio_calls_grpcio_by_mutual_tls_on_both_sides_of_the_proxy() {
    let (_folder, authority) = authority("ca");
    let [server, proxy, client] = ["server", "proxy", "client"]
        .map(|name| authority.sign_for(name, &format!("DNS:echo,URI:spiffe://prod/{name}")));
    let ca = authority.cert();
    let python = PythonServer::start_with("python", &[&ca, &server.0, &server.1]);
    for connection in ["fresh", "pooled"] {
        let inbound =
            listener(&proxy, &format!("client_ca = {ca:?}\nallow = [\"spiffe://prod/client\"]"));
        let (cert, key) = &proxy;
        let outbound = format!("mode = \"on\"\ncert = {cert:?}\nkey = {key:?}");
        let config = format!(
            "{inbound}\n[defaults]\nconnect_timeout = \"20s\"\nconnection = \"{connection}\"\n{}",
            towards_endpoints(&ca, &outbound)
        );
        let pillion = Program::new(&config)
            .endpoints([endpoint("echo", python.address(), "")])
            .listen_by_config()
            .start()
            .await;
        let pem = [&*ca, &client.0, &client.1];
        let came = call_in_every_way_with(pillion.address(), "echo", &pem).await;
        assert_eq!(came, expected_by_python(), "{connection}");
        let resumed = [("side", "upstream"), ("resumed", "yes")];
        let resumed = pillion.metrics().await.sum("tls_handshakes_total", &resumed);
        assert_eq!(resumed > 0.0, connection == "fresh", "{connection}: {resumed}");
    }
}

/// What `openssl s_client` prints when it connects and has nothing to say.
fn s_client(pillion: &Pillion, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &pillion.address().to_string()])
        .args(["-servername", "localhost", "-verify_hostname", "localhost"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A proxy that speaks TLS with this certificate.
async fn proxy(pair: &Pair, more: &str) -> Pillion {
    Program::new(&listener(pair, more)).endpoints([]).listen_by_config().start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_agrees_on_tls_1_3_and_http_2_and_on_1_2_only_where_that_is_allowed() {
    let (_folder, authority) = authority("ca");
    let pair = authority.sign_for("proxy", "DNS:localhost");
    let ca = authority.cert();
    let ca = ["-CAfile", ca.to_str().unwrap(), "-alpn", "h2"];
    let pillion = proxy(&pair, "").await;
    let said = s_client(&pillion, &ca);
    assert!(said.contains("TLSv1.3") && said.contains("ALPN protocol: h2"), "{said}");
    assert!(said.contains("Verification: OK"), "{said}");
    let old = [&ca[..], &["-tls1_2"]].concat();
    let said = s_client(&pillion, &old);
    assert!(said.contains("alert protocol version"), "{said}");
    let said = s_client(&pillion, &["-alpn", "http/1.1"]);
    assert!(said.contains("no application protocol"), "{said}");
    assert!(s_client(&pillion, &[]).contains("no application protocol"));
    let pillion = proxy(&pair, "min_version = \"1.2\"").await;
    let said = s_client(&pillion, &old);
    assert!(said.contains("TLSv1.2") && said.contains("ALPN protocol: h2"), "{said}");
    assert!(said.contains("ECDHE-ECDSA-"), "{said}");
    assert!(s_client(&pillion, &ca).contains("TLSv1.3"), "the newest that both speak");
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_told_what_is_wrong_with_its_certificate() {
    let (_folder, ca) = authority("ca");
    let (_other_folder, other) = authority("other");
    let pair = ca.sign_for("proxy", "DNS:localhost");
    let path = ca.cert();
    let pillion = proxy(&pair, &format!("client_ca = {path:?}\nallow = [\"me.internal\"]")).await;
    let told = |pair: Option<&Pair>| {
        let mut arguments = vec!["-CAfile", path.to_str().unwrap(), "-alpn", "h2", "-tls1_3"];
        if let Some((cert, key)) = pair {
            arguments.extend(["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()]);
        }
        // It ends at once, unless it waits for what a server has to say after the handshake.
        arguments.extend(["-ign_eof"]);
        s_client(&pillion, &arguments)
    };
    let said = told(None);
    assert!(said.contains("certificate required"), "{said}");
    let said = told(Some(&other.sign_for("me", "DNS:me.internal")));
    assert!(said.contains("unknown ca"), "{said}");
    let said = told(Some(&ca.sign_for("you", "DNS:you.internal")));
    assert!(said.contains("certificate unknown"), "{said}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_given_the_one_of_its_service() {
    let (_folder, authority) = authority("ca");
    let backend = Backend::echo().await;
    let server = authority.sign_for("server", "DNS:echo");
    let ca = authority.cert();
    let front = crate::tls_peer::TlsFront::start(backend.address(), &server, Some(&ca)).await;
    let (cert, key) = authority.sign_for("me", "DNS:me");
    let config = format!(
        "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}\n[service.echo.tls]\ncert = {cert:?}\nkey = {key:?}",
        towards_endpoints(&ca, "")
    );
    let endpoints = ["echo", "other"].map(|name| endpoint(name, front.address(), "tls = true"));
    let pillion = Pillion::start(&config, endpoints).await;
    let client = crate::client::Client::connect(pillion.address()).await;
    assert!(client.call("echo").await.is_ok());
    assert_eq!(client.call("other").await.header("pillion-error"), Some("connect_failed"));
}
