//! Certificates, keys and authorities that change while calls go on.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use crate::backend::Backend;
use crate::client::Client;
use crate::metrics::Metrics;
use crate::program::{Pillion, Program, endpoint};
use crate::tls_calls::{DAY, authority, listener, towards_endpoints};
use crate::tls_peer::{Pair, client_config, connect};
use crate::wait::until;

/// Puts a pair where a program reads it, each file renamed over what was there.
pub(crate) fn install((cert, key): &Pair, to: &Pair) {
    for (from, to) in [(cert, &to.0), (key, &to.1)] {
        let new = to.with_extension("new");
        fs::copy(from, &new).unwrap();
        fs::rename(new, to).unwrap();
    }
}

pub(crate) fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("tls_reloads_total", &[("result", result)])
}

/// The serial number of the certificate that a listener presents.
pub(crate) async fn presented(pillion: &Pillion, ca: &Path) -> Vec<u8> {
    let config = client_config(ca, None, &[b"h2"]);
    let tls = connect(pillion.address(), "localhost", config).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificates_of_both_ends_change_under_load_without_a_lost_call() {
    let (folder, authority) = authority("ca");
    let in_use = |name: &str| {
        let at = |end: &str| folder.path().join(format!("{name}.{end}"));
        (at("pem"), at("key"))
    };
    let (server, client) = (in_use("server-in-use"), in_use("client-in-use"));
    let names = ["URI:spiffe://prod/server", "URI:spiffe://prod/client"];
    install(&authority.sign_for("server", names[0]), &server);
    install(&authority.sign_for("client", names[1]), &client);
    let backend = Backend::echo().await;
    let more = format!("client_ca = {:?}\nallow = [\"spiffe://prod/client\"]", authority.cert());
    let more = format!("{more}\n[defaults]\nconnect_timeout = \"20s\"");
    let inner = Program::new(&listener(&server, &more))
        .endpoints([backend.as_endpoint("echo")])
        .listen_by_config()
        .start()
        .await;
    let (cert, key) = &client;
    let keys = format!(
        "mode = \"on\"\ncert = {cert:?}\nkey = {key:?}\nverify = [\"spiffe://prod/server\"]"
    );
    let config = format!(
        "[defaults]\nconnect_timeout = \"20s\"\n[service.pooled]\nconnection = \"pooled\"\n{}",
        towards_endpoints(&authority.cert(), &keys)
    );
    let endpoints = ["fresh", "pooled"].map(|service| endpoint(service, inner.address(), ""));
    let outer = Pillion::start(&config, endpoints).await;
    // The inner one is asked for the service by its own name.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = ["fresh", "pooled"].map(|service| {
        let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), outer.address());
        tokio::spawn(async move {
            let client = Client::connect(address).await;
            while !stop.load(Relaxed) {
                let head = crate::client::grpc_with("echo", &[("pillion-service", service)]);
                let answer = client.send(head, b"\0\0\0\0\x01x").await.unwrap();
                assert!(answer.is_ok(), "{answer:?}");
                done.fetch_add(1, Relaxed);
            }
        })
    });
    until("calls go on", async || done.load(Relaxed) > 20).await;
    for round in 1..=3 {
        let before = done.load(Relaxed);
        install(&authority.sign_for("server", names[0]), &server);
        install(&authority.sign_for("client", names[1]), &client);
        let expected = f64::from(round);
        inner
            .until_metrics("the listener reads", |metrics| reloads(metrics, "ok") >= expected)
            .await;
        outer.until_metrics("the client reads", |metrics| reloads(metrics, "ok") >= expected).await;
        until("calls go on", async || done.load(Relaxed) > before + 20).await;
    }
    stop.store(true, Relaxed);
    for caller in callers {
        caller.await.expect("no call is lost");
    }
    for pillion in [&inner, &outer] {
        let metrics = pillion.metrics().await;
        assert_eq!(metrics.sum("tls_handshake_failures_total", &[]), 0.0, "{}", pillion.log());
    }
}

#[tokio::test]
async fn a_certificate_behind_a_link_that_is_swapped_is_read_again() {
    // As Kubernetes mounts a secret: tls.crt -> ..data/tls.crt, ..data -> ..1.
    let (folder, authority) = authority("ca");
    let mount = folder.path();
    for version in ["..1", "..2"] {
        let (cert, key) = authority.sign_for(version, "DNS:localhost");
        fs::create_dir(mount.join(version)).unwrap();
        fs::copy(cert, mount.join(version).join("tls.crt")).unwrap();
        fs::copy(key, mount.join(version).join("tls.key")).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    let pair = (mount.join("tls.crt"), mount.join("tls.key"));
    symlink("..data/tls.crt", &pair.0).unwrap();
    symlink("..data/tls.key", &pair.1).unwrap();
    let pillion = Program::new(&listener(&pair, "")).endpoints([]).listen_by_config().start().await;
    let first = presented(&pillion, &authority.cert()).await;
    symlink("..2", mount.join("..tmp")).unwrap();
    fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
    until("the other one is presented", async || {
        presented(&pillion, &authority.cert()).await != first
    })
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_told_of() {
    let (folder, authority) = authority("ca");
    let pair = (folder.path().join("in-use.pem"), folder.path().join("in-use.key"));
    install(&authority.sign_for("one", "DNS:localhost"), &pair);
    let pillion = Program::new(&listener(&pair, "")).endpoints([]).listen_by_config().start().await;
    let first = presented(&pillion, &authority.cert()).await;
    let other = authority.sign_for("two", "DNS:localhost");
    // The certificate alone: the key is of another.
    fs::copy(&other.0, &pair.0).unwrap();
    let told = || pillion.log().contains("is not the key of the certificate in");
    until("it is told", async || told()).await;
    pillion.until_metrics("it is counted", |metrics| reloads(metrics, "error") >= 1.0).await;
    assert!(presented(&pillion, &authority.cert()).await == first);
    fs::write(&pair.0, "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    until("so is damage", async || pillion.log().contains("is not PEM")).await;
    assert!(presented(&pillion, &authority.cert()).await == first);
    install(&other, &pair);
    pillion.until_metrics("what is good is taken", |metrics| reloads(metrics, "ok") >= 1.0).await;
    assert!(presented(&pillion, &authority.cert()).await != first);
    let log = pillion.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[tokio::test]
async fn an_authority_that_is_added_is_believed_at_once_and_one_that_is_taken_out_no_more() {
    let (folder, old) = authority("old");
    let (_new_folder, new) = authority("new");
    let bundle = folder.path().join("bundle.pem");
    fs::copy(old.cert(), &bundle).unwrap();
    let pair = old.sign_for("server", "DNS:localhost");
    let pillion = Program::new(&listener(&pair, &format!("client_ca = {bundle:?}")))
        .endpoints([])
        .listen_by_config()
        .start()
        .await;
    let pairs = [old.sign_for("me", "DNS:me"), new.sign_for("me", "DNS:me")];
    let is_let_in = async |pair: &Pair| {
        let config = client_config(&old.cert(), Some(pair), &[b"h2"]);
        let tls = connect(pillion.address(), "localhost", config).await.unwrap();
        // Refused, it ends with an alert; let in, it is silent until it is asked something.
        let client = Client::over(tls, &h2::client::Builder::new()).await;
        client.send(crate::client::grpc("nobody"), b"").await.is_ok()
    };
    assert!(is_let_in(&pairs[0]).await && !is_let_in(&pairs[1]).await);
    fs::copy(new.cert(), &bundle).unwrap();
    pillion.until_metrics("it is read", |metrics| reloads(metrics, "ok") >= 1.0).await;
    assert!(!is_let_in(&pairs[0]).await && is_let_in(&pairs[1]).await);
}

#[tokio::test]
async fn when_certificates_expire_is_a_metric_and_a_warning_ahead_of_time() {
    let (_folder, authority) = authority("ca");
    let now = SystemTime::now();
    let expiry = now + 9 * DAY;
    let pair = authority.sign_between("server", "DNS:localhost", now - 21 * DAY, expiry);
    let pillion = Program::new(&listener(&pair, &format!("client_ca = {:?}", authority.cert())))
        .endpoints([])
        .listen_by_config()
        .start()
        .await;
    let since = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let expected = Duration::from_secs(since.as_secs()).as_secs_f64();
    let file = pair.0.to_str().unwrap();
    let own = [("file", file), ("role", "listener")];
    let is_told = |m: &Metrics| m.sum("tls_certificate_expiry_timestamp_seconds", &own) == expected;
    pillion.until_metrics("it is told", is_told).await;
    until("it is warned of", async || pillion.log().contains("TLS: the certificate expires on"))
        .await;
    assert_eq!(
        pillion.log().matches("renew it").count(),
        1,
        "the authority has its life before it"
    );
}
