//! `pillion check` reads the files of TLS, and `pillion config` shows none of what is in them.

use std::fs;

use crate::tls::Authority;
use crate::{file, pillion};

#[test]
fn files_of_tls_that_cannot_be_used_are_told_with_the_place_of_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let (cert, key) = authority.sign_for("one", "DNS:one");
    let (_, other) = authority.sign_for("two", "DNS:two");
    let damaged = folder.path().join("damaged.pem");
    fs::write(&damaged, "no certificate").unwrap();
    let ca = authority.cert();
    let listener =
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncert = {cert:?}\n");
    for (text, expected) in [
        (format!("{listener}key = {other:?}"), ":5:7: listener.tls.key: "),
        (format!("{listener}key = {cert:?}"), ":5:7: listener.tls.key: "),
        (format!("{listener}key = \"none.key\""), ":5:7: listener.tls.key: "),
        (
            format!("{listener}key = {key:?}\nclient_ca = {damaged:?}"),
            ":6:13: listener.tls.client_ca: ",
        ),
        (format!("[defaults.tls]\nca = {damaged:?}"), ":2:6: tls.ca: "),
        (format!("[service.a.tls]\ncert = {damaged:?}\nkey = {key:?}"), ":2:8: tls.cert: "),
        (
            format!("[[route]]\nauthority = \"a\"\nservice = \"a\"\ntls = {{ ca = {damaged:?} }}"),
            ":4:14: tls.ca: ",
        ),
    ] {
        let (_folder, path) = file(&text);
        let outcome = pillion(&["check", "-c", &path]);
        assert_eq!(outcome.status, 2, "{text}");
        assert!(
            outcome.stderr.contains(&format!("{path}{expected}")),
            "{text}: {}",
            outcome.stderr
        );
    }
    let good = format!("{listener}key = {key:?}\nclient_ca = {ca:?}\n[defaults.tls]\nca = {ca:?}");
    let (_folder, path) = file(&good);
    let outcome = pillion(&["check", "-c", &path]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let shown = pillion(&["config", "-c", &path]).stdout;
    assert!(shown.contains("[listener.tls]") && !shown.contains("BEGIN"), "{shown}");
}

#[test]
fn a_key_that_is_encrypted_is_refused_in_those_words() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let (cert, _) = authority.sign_for("one", "DNS:one");
    let key = folder.path().join("locked.key");
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(&key, text).unwrap();
    let (_folder, path) = file(&format!("[defaults.tls]\ncert = {cert:?}\nkey = {key:?}"));
    let outcome = pillion(&["check", "-c", &path]);
    assert!(
        outcome.stderr.contains("holds an encrypted key; allowed: PEM of"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn live_policy_cannot_change_tls() {
    let (_folder, path) = file("[tls]\nmode = \"off\"");
    let folder = std::path::Path::new(&path).parent().unwrap().join("service");
    fs::create_dir(&folder).unwrap();
    let document = folder.join("orders.toml");
    fs::rename(&path, &document).unwrap();
    let outcome = pillion(&["policy", "check", document.to_str().unwrap()]);
    assert_eq!(outcome.status, 2, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("is of the configuration file only"), "{}", outcome.stderr);
}
