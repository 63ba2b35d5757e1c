//! Mutual TLS where everything that can go wrong does: files changed by halves, chains that are out of date
//! further up, crowds, and an inner proxy that its caller does not believe.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use h2::client::Builder;

use crate::backend::Backend;
use crate::client::Client;
use crate::program::{Pillion, Program, endpoint};
use crate::tls::Authority;
use crate::tls_calls::{DAY, authority, listener, towards_endpoints};
use crate::tls_mutual::{CLIENT, SERVER, SHOP, inbound, outbound};
use crate::tls_peer::{Pair, TlsFront, client_config, connect, server_config_of};
use crate::tls_reload::{install, presented, reloads};
use crate::wait::until;

/// What somebody may leave in place of a pair of files, and how: to `pair`, which `good` has been installed as, where
/// `other` is to come.
type Damage = (&'static str, fn(pair: &Pair, good: &Pair, other: &Pair));

const DAMAGES: [Damage; 13] = [
    ("the other's key, before its certificate", |pair, _, other| copy(&other.1, &pair.1)),
    ("the other's certificate, before its key", |pair, _, other| copy(&other.0, &pair.0)),
    ("an empty certificate", |pair, _, _| fs::write(&pair.0, "").unwrap()),
    ("an empty key", |pair, _, _| fs::write(&pair.1, "").unwrap()),
    ("no certificate", |pair, _, _| fs::remove_file(&pair.0).unwrap()),
    ("no key", |pair, _, _| fs::remove_file(&pair.1).unwrap()),
    ("a folder for a key", |pair, _, _| {
        fs::remove_file(&pair.1).unwrap();
        fs::create_dir(&pair.1).unwrap();
    }),
    ("half a certificate", |pair, good, _| fs::write(&pair.0, half(&good.0)).unwrap()),
    ("half a key", |pair, good, _| fs::write(&pair.1, half(&good.1)).unwrap()),
    ("the key for a certificate", |pair, good, _| copy(&good.1, &pair.0)),
    ("the certificate for a key", |pair, good, _| copy(&good.0, &pair.1)),
    ("zeros", |pair, _, _| fs::write(&pair.0, [0; 4096]).unwrap()),
    ("a key of an algorithm that is not allowed", |pair, _, _| {
        let key = std::process::Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"])
            .output()
            .unwrap();
        fs::write(&pair.1, key.stdout).unwrap();
    }),
];

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

fn half(file: &Path) -> Vec<u8> {
    let mut text = fs::read(file).unwrap();
    text.truncate(text.len() / 2);
    text
}

fn mend(pair: &Pair, good: &Pair) {
    if pair.1.is_dir() {
        fs::remove_dir(&pair.1).unwrap();
    }
    install(good, pair);
}

#[tokio::test]
async fn whatever_is_left_half_done_of_a_pair_changes_nothing_at_either_side_until_it_is_whole() {
    let (folder, authority) = authority("ca");
    let pair = (folder.path().join("in-use.pem"), folder.path().join("in-use.key"));
    let names = "DNS:localhost,URI:spiffe://prod/proxy";
    let mut good = authority.sign_for("first", names);
    install(&good, &pair);
    // Both sides of the program read the same files.
    let backend = Backend::echo().await;
    let server = authority.sign_for("server", "DNS:echo");
    let front = TlsFront::start(backend.address(), &server, Some(&authority.cert())).await;
    let (cert, key) = &pair;
    let outbound = format!("mode = \"on\"\ncert = {cert:?}\nkey = {key:?}");
    let config = format!(
        "{}\n[defaults]\nconnect_timeout = \"20s\"\n{}",
        listener(&pair, ""),
        towards_endpoints(&authority.cert(), &outbound)
    );
    let pillion = Program::new(&config)
        .endpoints([endpoint("echo", front.address(), "")])
        .listen_by_config()
        .start()
        .await;
    let application = client_config(&authority.cert(), None, &[b"h2"]);
    let tls = connect(pillion.address(), "localhost", application).await.unwrap();
    let client = Client::over(tls, &Builder::new()).await;
    // Until then nobody has read the files for that side.
    assert!(client.call("echo").await.is_ok());
    let mut shown = presented(&pillion, &authority.cert()).await;
    for (round, (damage, harm)) in DAMAGES.into_iter().enumerate() {
        let other = authority.sign_for(&format!("next-{round}"), names);
        let metrics = pillion.metrics().await;
        let (errors, reads) = (reloads(&metrics, "error"), reloads(&metrics, "ok"));
        harm(&pair, &good, &other);
        let what = format!("{damage} is noticed at both sides");
        pillion.until_metrics(&what, |metrics| reloads(metrics, "error") >= errors + 2.0).await;
        assert!(presented(&pillion, &authority.cert()).await == shown, "{damage}");
        assert!(client.call("echo").await.is_ok(), "{damage}");
        mend(&pair, &other);
        let what = format!("{damage} is mended at both sides");
        pillion.until_metrics(&what, |metrics| reloads(metrics, "ok") >= reads + 2.0).await;
        let now = presented(&pillion, &authority.cert()).await;
        assert!(now != shown, "{damage}");
        assert!(client.call("echo").await.is_ok(), "{damage}");
        (shown, good) = (now, other);
    }
    assert!(front.seen().failed.is_empty(), "{:?}", front.seen());
    let log = pillion.log();
    assert!(log.contains("is not the key of the certificate in"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

/// The certificate of `name`, which an authority between it and `root` has signed that is out of date.
fn below_an_expired_authority(root: &Authority, name: &str, names: &str) -> Pair {
    let now = SystemTime::now();
    let between = root.sign_authority(&format!("above-{name}"), now - 2 * DAY, now - DAY);
    let (cert, key) = between.sign_for(name, names);
    let chain = [fs::read(&cert).unwrap(), fs::read(between.cert()).unwrap()].concat();
    fs::write(&cert, chain).unwrap();
    (cert, key)
}

/// What a call through two proxies is told when the outer one does not believe the inner one, and the
/// reason that the inner one logs.
async fn refused_by_the_outer(believed: &Authority, pair: Pair, verify: &str) -> (String, String) {
    let backend = Backend::echo().await;
    let config = format!("{}\n[defaults]\nconnect_timeout = \"20s\"", listener(&pair, ""));
    let inner = Program::new(&config)
        .endpoints([backend.as_endpoint("echo")])
        .listen_by_config()
        .start()
        .await;
    let (_folder, own) = authority("own");
    let me = own.sign_for("me", CLIENT);
    let outer = outbound(believed, &me, verify, &inner).await;
    let answer = Client::connect(outer.address()).await.call("echo").await;
    assert_eq!(answer.header("pillion-error"), Some("connect_failed"), "{answer:?}");
    assert_eq!(backend.counts().calls, 0);
    until("the inner proxy says why", async || inner.log().contains("TLS: no connection")).await;
    let log = inner.log();
    let line = log.lines().find(|line| line.contains("TLS: no connection")).unwrap().to_owned();
    (answer.header("grpc-message").unwrap().to_owned(), line)
}

const ORDERS: &str = "\"spiffe://prod/ns/shop/sa/orders\"";

#[tokio::test]
async fn an_inner_proxy_that_is_not_believed_learns_why_as_the_caller_does() {
    let (_folder, ca) = authority("ca");
    let (_other_folder, other) = authority("other");
    let now = SystemTime::now();
    let expired = ca.sign_between("old", SERVER, now - 2 * DAY, now - DAY);
    let early = ca.sign_between("early", SERVER, now + DAY, now + 2 * DAY);
    let cases = [
        (expired, "(expired)", "peer_expired"),
        (early, "(not_yet_valid)", "peer_expired"),
        (other.sign_for("other", SERVER), "(unknown_ca)", "peer_unknown_ca"),
        (
            ca.sign_for("bank", "URI:spiffe://prod/ns/bank/sa/orders"),
            "(wrong_name)",
            "peer_refused",
        ),
        (below_an_expired_authority(&ca, "deep", SERVER), "(expired)", "peer_expired"),
    ];
    for (pair, outer, inner) in cases {
        let (message, log) = refused_by_the_outer(&ca, pair, ORDERS).await;
        assert!(message.contains(outer), "{message}");
        assert!(log.contains(&format!("reason={inner:?}")), "{log}");
    }
}

#[tokio::test]
async fn a_caller_below_an_authority_that_has_expired_is_refused_and_both_ends_know_why() {
    let (_folder, ca) = authority("ca");
    let backend = Backend::echo().await;
    let inner = inbound(&ca, SERVER, SHOP, &backend).await;
    let now = SystemTime::now();
    let between = ca.sign_authority("between", now - DAY, now + DAY);
    let (cert, key) = between.sign_for("good", CLIENT);
    let chain = [fs::read(&cert).unwrap(), fs::read(between.cert()).unwrap()].concat();
    fs::write(&cert, chain).unwrap();
    let call = async |pair: &Pair| {
        let outer = outbound(&ca, pair, ORDERS, &inner).await;
        Client::connect(outer.address()).await.call("echo").await
    };
    assert!(call(&(cert, key)).await.is_ok(), "one that is good is believed");
    let answer = call(&below_an_expired_authority(&ca, "deep", CLIENT)).await;
    let message = answer.header("grpc-message").unwrap();
    assert!(message.contains("(peer_expired)"), "{message}");
    until("the inner proxy says why", async || inner.log().contains("reason=\"expired\"")).await;
    assert_eq!(backend.counts().calls, 1);
}

#[tokio::test]
async fn an_endpoint_that_speaks_tls_1_2_alone_is_called_where_that_is_allowed() {
    let (_folder, ca) = authority("ca");
    let backend = Backend::echo().await;
    let server = ca.sign_for("server", "DNS:echo");
    let old: &[_] = &[&rustls::version::TLS12];
    let config = server_config_of(old, &server, Some(&ca.cert()), &[b"h2"]);
    let front = TlsFront::start_with(backend.address(), config).await;
    let (cert, key) = ca.sign_for("me", CLIENT);
    for (version, is_ok) in [("1.3", false), ("1.2", true)] {
        let keys =
            format!("mode = \"on\"\ncert = {cert:?}\nkey = {key:?}\nmin_version = {version:?}");
        let config = format!(
            "[defaults]\nconnect_timeout = \"20s\"\nattempts = 1\n{}",
            towards_endpoints(&ca.cert(), &keys)
        );
        let pillion = Pillion::start(&config, [endpoint("echo", front.address(), "")]).await;
        let client = Client::connect(pillion.address()).await;
        for _ in 0..3 {
            let answer = client.call("echo").await;
            assert_eq!(answer.is_ok(), is_ok, "{answer:?}");
            let message = answer.header("grpc-message").unwrap_or_default();
            assert_eq!(message.contains("(version)"), !is_ok, "{message}");
        }
    }
    let failed = front.seen().failed;
    assert!(failed.iter().all(|why| why.contains("Tls12NotOffered")), "{failed:?}");
}

#[tokio::test]
async fn a_thousand_callers_that_shake_hands_at_once_all_come_through() {
    let (_folder, ca) = authority("ca");
    let backend = Backend::echo().await;
    let pair = ca.sign_for("proxy", "DNS:localhost");
    let more = format!(
        "client_ca = {:?}\nallow = [{SHOP}]\n[listener.limits]\nheader_timeout = \"60s\"\n[defaults]\nconnect_timeout = \"60s\"",
        ca.cert()
    );
    let pillion: Pillion = Program::new(&listener(&pair, &more))
        .endpoints([backend.as_endpoint("echo")])
        .listen_by_config()
        .start()
        .await;
    let before = pillion.open_files();
    let me = ca.sign_for("me", CLIENT);
    let mut config = client_config(&ca.cert(), Some(&me), &[b"h2"]);
    config.resumption = rustls::client::Resumption::disabled();
    let shaking = (0..1000).map(|_| connect(pillion.address(), "localhost", config.clone()));
    let connected = tokio::time::timeout(Duration::from_secs(60), join_all(shaking)).await.unwrap();
    let failed: Vec<_> = connected.iter().filter_map(|tls| tls.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of 1000: {:?}", failed.len(), failed[0]);
    for tls in connected.into_iter().flatten().step_by(100) {
        assert!(Client::over(tls, &Builder::new()).await.call("echo").await.is_ok());
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("tls_handshake_failures_total", &[("side", "downstream")]), 0.0);
    until("nothing of them is left", async || pillion.open_files() <= before + 4).await;
}
