//! Passwords, permissions and certificates that change while it is registered.

use std::{fs, path::Path, time::Duration};

use etcd_client::{Client, ConnectOptions, Permission};
use tokio::time::sleep;

use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::relay::Relay;
use crate::site::{IN_TIME, history, record_by, register, source, until_state};
use crate::tls::Authority;
use crate::wait::until;

async fn root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "root");
    Client::connect([etcd.url()], Some(options)).await.unwrap()
}

/// An etcd that lets `pillion` read and write `pay/` and nothing else.
async fn guarded(password: &Path) -> Etcd {
    let etcd = Etcd::start_with(&["--bcrypt-cost", "4"]).await;
    etcd.allow("pillion", "first", "pay/").await;
    fs::write(password, "first").unwrap();
    permit(&etcd).await;
    etcd
}

async fn permit(etcd: &Etcd) {
    let all = Permission::read_write("pay/").with_prefix();
    root(etcd).await.role_grant_permission("reader", all).await.unwrap();
}

async fn start(url: &str, password: &Path) -> Pillion {
    let login = format!("username = \"pillion\"\npassword_file = {password:?}");
    let config = source(&[url.to_owned()], &login) + &register("");
    let pillion = Program::new(&config).start().await;
    until_state(&pillion, "registered").await;
    pillion
}

/// A change that is written shows that the login works.
async fn until_written(client: &mut Client, pillion: &Pillion, weight: u32) {
    let body = format!("{{\"weight\": {weight}}}");
    let began = std::time::Instant::now();
    pillion.ask_with("PUT", "/registrations/pay", &body).await;
    let expected = format!("\"weight\":\"{weight}\"");
    until("the change is written", async || {
        let record = record_by(client).await;
        record.is_some_and(|record| record.is_ours() && record.value.contains(&expected))
    })
    .await;
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_new_password_is_used_and_the_lease_lives_on_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    let etcd = guarded(&password).await;
    let relay = Relay::to(etcd.address()).await;
    let pillion = start(&relay.url(), &password).await;
    let mut root = root(&etcd).await;
    root.user_change_password("pillion", "second").await.unwrap();
    // Longer than the lease would live.
    sleep(Duration::from_secs(5)).await;
    assert!(record_by(&mut root).await.is_some_and(|record| record.is_ours()));
    assert!(history(root.clone()).await.iter().all(Option::is_some), "it was never gone");
    fs::write(&password, "second").unwrap();
    until_written(&mut root, &pillion, 7).await;
    // The connection breaks at the worst time: the old password is in the file again.
    root.user_change_password("pillion", "third").await.unwrap();
    relay.cut();
    until("it runs out", async || record_by(&mut root).await.is_none()).await;
    relay.mend();
    fs::write(&password, "third").unwrap();
    until_written(&mut root, &pillion, 8).await;
    let log = pillion.log();
    assert!(["first", "second", "third"].iter().all(|secret| !log.contains(secret)), "{log}");
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_and_given_back_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    let etcd = guarded(&password).await;
    let pillion = start(&etcd.url(), &password).await;
    let mut root = root(&etcd).await;
    let all = Permission::read_write("pay/").with_prefix();
    let options = etcd_client::RoleRevokePermissionOptions::new().with_prefix();
    root.role_revoke_permission("reader", "pay/", Some(options)).await.unwrap();
    until("the refusal is told", async || {
        let report = pillion.get("/registrations/pay").await.text;
        report.contains("permission denied")
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    root.role_grant_permission("reader", all).await.unwrap();
    until_written(&mut root, &pillion, 7).await;
    assert!(history(root).await.iter().all(Option::is_some), "it was never gone");
}

#[tokio::test]
async fn certificates_are_read_anew_with_each_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    // etcd trusts one authority; the client has a certificate of another one first.
    let (cert, key) = new.sign("etcd");
    let trusted = format!("--trusted-ca-file={}", new.cert().display());
    let etcd = Etcd::start_tls_with(&cert, &key, &["--client-cert-auth", &trusted]).await;
    let at = |name: &str| folder.path().join(name);
    let give = |(cert, key): &(std::path::PathBuf, std::path::PathBuf)| {
        fs::copy(cert, at("client.pem")).unwrap();
        fs::copy(key, at("client.key")).unwrap();
    };
    let good = new.sign("client");
    give(&old.sign("client"));
    let files = format!(
        "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}",
        new.cert(),
        at("client.pem"),
        at("client.key")
    );
    let config = source(&[etcd.url()], &files) + &register("");
    let pillion = Program::new(&config).start_unready().await;
    until("the refusal is told", async || {
        !pillion.get("/registrations/pay").await.json()["problem"].is_null()
    })
    .await;
    give(&good);
    let mut client = etcd.tls_client(&new.cert(), &good.0, &good.1).await;
    let began = std::time::Instant::now();
    until("it is registered", async || {
        record_by(&mut client).await.is_some_and(|record| record.is_ours())
    })
    .await;
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
}
