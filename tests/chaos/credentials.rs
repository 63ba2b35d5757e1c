//! Passwords, certificates and permissions that change while calls go on.

use std::{fs, path::Path};

use etcd_client::{Client, ConnectOptions, Permission};

use crate::backend::Backend;
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::{Pillion, Program};
use crate::relay::Relay;
use crate::scene::{age, key, source, until_ready, value};
use crate::tls::Authority;
use crate::wait::until;

/// A change of the endpoint's record that is seen shows that etcd is followed.
async fn until_followed(mut writer: Client, backend: &Backend, pillion: &Pillion) {
    let version = format!("v{}", fastrand::u64(..));
    let address = backend.address();
    let value = format!(r#"{{"Addr":"{address}","Metadata":{{"version":"{version}"}}}}"#);
    writer.put(key(address), value, None).await.unwrap();
    until("the change is seen", async || {
        pillion.get("/services/orders").await.text.contains(&version)
    })
    .await;
}

async fn root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "root");
    Client::connect([etcd.url()], Some(options)).await.unwrap()
}

/// An etcd that lets `pillion` read `orders/` and nothing else, and one endpoint.
async fn guarded(arguments: &[&str]) -> (Etcd, Backend) {
    let etcd = Etcd::start_with(&[&["--bcrypt-cost", "4"], arguments].concat()).await;
    let backend = Backend::echo().await;
    etcd.put(&key(backend.address()), &value(backend.address())).await;
    etcd.allow("pillion", "first", "orders/").await;
    (etcd, backend)
}

fn login(url: &str, password: &Path) -> String {
    source(url, &format!("username = \"pillion\"\npassword_file = {password:?}"))
}

#[tokio::test]
async fn a_password_that_was_changed_in_etcd_is_used_once_its_file_has_it() {
    let (etcd, backend) = guarded(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "first\n").unwrap();
    let relay = Relay::to(etcd.address()).await;
    let pillion = Program::new(&login(&relay.url(), &password)).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    root(&etcd).await.user_change_password("pillion", "second").await.unwrap();
    // Connections break now and then; this one at the worst time.
    relay.break_off().await;
    until("the refusal is told", async || pillion.log().contains("authentication failed")).await;
    flow.more().await;
    fs::write(&password, "second\n").unwrap();
    until_followed(root(&etcd).await, &backend, &pillion).await;
    assert!(!pillion.log().contains("first") && !pillion.log().contains("second"));
    flow.end().await;
}

#[tokio::test]
async fn a_login_that_runs_out_is_renewed_wherever_it_is_needed() {
    let (etcd, backend) = guarded(&["--auth-token-ttl", "1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "first").unwrap();
    let relay = Relay::to(etcd.address()).await;
    let pillion = Program::new(&login(&relay.url(), &password)).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        until_followed(root(&etcd).await, &backend, &pillion).await;
        assert!(age(&pillion).await < 12.0, "{}", age(&pillion).await);
        relay.break_off().await;
        until_followed(root(&etcd).await, &backend, &pillion).await;
    }
    flow.end().await;
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_leaves_the_set_and_is_seen_in_its_age() {
    let (etcd, backend) = guarded(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "first").unwrap();
    let relay = Relay::to(etcd.address()).await;
    let pillion = Program::new(&login(&relay.url(), &password)).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    let mut role = root(&etcd).await;
    let everything = Some(etcd_client::RoleRevokePermissionOptions::new().with_prefix());
    role.role_revoke_permission("reader", "orders/", everything).await.unwrap();
    relay.break_off().await;
    until("the refusal is told", async || pillion.log().contains("etcd refuses a service")).await;
    // Twice as long as it would take to prove it.
    until("the set is seen to be old", async || age(&pillion).await > 10.0).await;
    until_ready(&pillion, 1).await;
    let read = Permission::read("orders/").with_prefix();
    role.role_grant_permission("reader", read).await.unwrap();
    until_followed(root(&etcd).await, &backend, &pillion).await;
    until("it is proved again", async || age(&pillion).await < 6.0).await;
    flow.end().await;
}

#[tokio::test]
async fn rotated_certificates_are_used_while_the_connection_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "first");
    let (server, server_key) = authority.sign("server");
    let (client, client_key) = authority.sign("client");
    let trusted = format!("--trusted-ca-file={}", authority.cert().display());
    let etcd = Etcd::start_tls_with(&server, &server_key, &["--client-cert-auth", &trusted]).await;
    let at = |name: &str| folder.path().join(name);
    fs::copy(authority.cert(), at("ca.pem")).unwrap();
    fs::copy(&client, at("cert.pem")).unwrap();
    fs::copy(&client_key, at("key.pem")).unwrap();
    let mut writer = etcd.tls_client(&authority.cert(), &client, &client_key).await;
    let backend = Backend::echo().await;
    writer.put(key(backend.address()), value(backend.address()), None).await.unwrap();
    let keys = format!(
        "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}",
        at("ca.pem"),
        at("cert.pem"),
        at("key.pem")
    );
    let pillion = Program::new(&source(&etcd.url(), &keys)).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until_followed(writer.clone(), &backend, &pillion).await;

    // One after the other, so that for a moment they do not belong together.
    let (client, client_key) = authority.sign("client-2");
    fs::copy(&client, at("cert.pem")).unwrap();
    until("the pair is refused", async || pillion.log().contains("do not work")).await;
    until_followed(writer.clone(), &backend, &pillion).await;
    fs::copy(&client_key, at("key.pem")).unwrap();
    until("the new ones are used", async || pillion.log().contains("changed, and work")).await;
    until_followed(writer.clone(), &backend, &pillion).await;

    fs::write(at("ca.pem"), "nonsense").unwrap();
    until("nonsense is refused", async || pillion.log().matches("do not work").count() > 1).await;
    until_followed(writer.clone(), &backend, &pillion).await;
    flow.end().await;
}

#[tokio::test]
async fn without_a_ca_file_the_authorities_of_the_system_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "system");
    let (server, server_key) = authority.sign("server");
    let etcd = Etcd::start_tls(&server, &server_key).await;
    let config = source(&etcd.url(), "");
    let system = format!("SSL_CERT_FILE={}", authority.cert().display());
    let trusting = Program::new(&config).by(&["env", &system]).start().await;
    assert_eq!(trusting.metrics().await.sum("source_synced", &[]), 1.0);
    let wary = Program::new(&config).start_unready().await;
    until("the certificate is refused", async || wary.get("/ready").await.text.contains("cert"))
        .await;
}
