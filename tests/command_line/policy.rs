//! `pillion policy`: what it shows of live policy in a real etcd, and changes there.

use std::{fs, io::Write, process::Stdio};

use serde_json::Value;

use crate::etcd::Etcd;
use crate::{Outcome, bare_command, file, pillion};

fn policy(etcd: &Etcd, args: &[&str]) -> Outcome {
    pillion(&[&["policy", "--etcd", &etcd.url()], args].concat())
}

/// Runs a command and types `input`.
fn answered(etcd: &Etcd, args: &[&str], input: &str) -> Outcome {
    let mut command = bare_command();
    command.args(["policy", "--etcd", &etcd.url()]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn value(etcd: &Etcd, key: &str) -> Option<String> {
    let answer = etcd.client().await.get(format!("/pillion/policy/{key}"), None).await.unwrap();
    answer.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
}

#[tokio::test]
async fn put_shows_what_changes_asks_and_writes_what_was_said() {
    let etcd = Etcd::start().await;
    let (_folder, path) = file("attempts = 5\n");
    let put = &["put", "service/orders", &path];
    for answer in ["", "n\n", "maybe\n"] {
        let outcome = answered(&etcd, put, answer);
        assert_eq!(outcome.status, 1, "{answer:?}");
        assert_eq!(outcome.stdout, "service/orders, which is new\n+ attempts = 5\n");
        assert_eq!(
            outcome.stderr,
            "write this? [y/N] error: nothing is changed; --yes does not ask\n"
        );
    }
    assert_eq!(value(&etcd, "service/orders").await, None);
    let outcome = answered(&etcd, put, "y\n");
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("service/orders is written, at revision "));
    assert_eq!(value(&etcd, "service/orders").await.as_deref(), Some("attempts = 5\n"));
    let outcome = policy(&etcd, put);
    assert_eq!((outcome.status, &*outcome.stdout), (0, "service/orders says this already\n"));
    let json = "{\"attempts\": 4, \"timeout\": \"1s\"}";
    let outcome = answered(&etcd, &["put", "service/orders", "-", "--yes"], json);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines[1..4], ["- attempts = 5", "+ attempts = 4", "+ timeout = \"1s\""]);
    assert_eq!(policy(&etcd, &["get", "service/orders"]).stdout, json);
}

#[tokio::test]
async fn rm_shows_what_goes_and_deletes_it() {
    let etcd = Etcd::start().await;
    etcd.put("/pillion/policy/service/orders", "attempts = 5").await;
    let outcome = policy(&etcd, &["rm", "service/orders"]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stdout.ends_with("\n- attempts = 5\n"), "{}", outcome.stdout);
    assert!(value(&etcd, "service/orders").await.is_some());
    let outcome = policy(&etcd, &["rm", "service/orders", "-y"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(value(&etcd, "service/orders").await, None);
    for command in ["rm", "get"] {
        let outcome = policy(&etcd, &[command, "service/orders"]);
        assert_eq!(outcome.status, 1);
        assert_eq!(outcome.stderr, "error: there is no /pillion/policy/service/orders\n");
    }
}

#[tokio::test]
async fn a_key_that_no_proxy_reads_is_shown_and_taken_away() {
    let etcd = Etcd::start().await;
    for key in ["servise/orders", "other", "route/a b"] {
        etcd.put(&format!("/pillion/policy/{key}"), "attempts = 5").await;
        assert_eq!(policy(&etcd, &["get", key]).stdout, "attempts = 5");
        let outcome = policy(&etcd, &["rm", key, "--yes"]);
        assert_eq!((outcome.status, &*outcome.stderr), (0, ""), "{key}");
        assert!(outcome.stdout.contains("is not the key of a policy"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains(&format!("{key} is deleted")), "{}", outcome.stdout);
        assert_eq!(value(&etcd, key).await, None);
    }
    let (_folder, path) = file("attempts = 5");
    assert_eq!(policy(&etcd, &["put", "other", &path, "--yes"]).status, 2);
}

#[tokio::test]
async fn what_somebody_wrote_meanwhile_is_not_lost() {
    let etcd = Etcd::start().await;
    let (_folder, path) = file("attempts = 5");
    let mut command = bare_command();
    command.args(["policy", "put", "service/orders", &path, "--etcd", &etcd.url()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It has looked once it asks.
    let mut asked = [0; 11];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut asked).unwrap();
    etcd.put("/pillion/policy/service/orders", "attempts = 2").await;
    child.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("has changed meanwhile: nothing is written"), "{stderr}");
    assert_eq!(value(&etcd, "service/orders").await.as_deref(), Some("attempts = 2"));
}

#[tokio::test]
async fn ls_shows_every_document_and_what_is_wrong_with_it() {
    let etcd = Etcd::start().await;
    let outcome = policy(&etcd, &["ls"]);
    assert_eq!(outcome.stdout, "there is no policy below /pillion/policy\n");
    etcd.put("/pillion/policy/service/orders", "{\"attempts\": 5}").await;
    etcd.put("/pillion/policy/route/a", "authorty = \"a\"").await;
    etcd.put("/pillion/policy/other", "x").await;
    let outcome = policy(&etcd, &["ls"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["KEY", "REVISION", "SAYS", "REFUSED"]
    );
    assert!(lines[1].starts_with("other") && lines[1].contains("is not the key of a policy"));
    assert!(lines[2].starts_with("route/a") && lines[2].contains("unknown key \"authorty\""));
    assert!(lines[3].starts_with("service/orders") && lines[3].ends_with("attempts=5"));
    let outcome = policy(&etcd, &["ls", "-o", "json"]);
    let list: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(list["documents"][2]["value"], "{\"attempts\": 5}");
    assert_eq!(list["documents"][2]["problem"], Value::Null);
}

#[tokio::test]
async fn the_place_is_that_of_the_configuration() {
    let etcd = Etcd::start().await;
    etcd.put("/mine/service/orders", "attempts = 5").await;
    let (_folder, path) = file(&format!(
        "[policy]\nsource = \"b\"\nprefix = \"/mine/\"\n[[source]]\nname = \"a\"\n\
         endpoints = [\"http://127.0.0.1:1\"]\n[[source]]\nname = \"b\"\nendpoints = [\"{}\"]",
        etcd.url()
    ));
    let get = |args: &[&str]| pillion(&[&["policy", "get", "service/orders"], args].concat());
    assert_eq!(get(&["-c", &path]).stdout, "attempts = 5");
    assert_eq!(get(&["--etcd", &etcd.url(), "--policy-prefix", "/mine"]).stdout, "attempts = 5");
    assert_eq!(get(&["--etcd", &etcd.url()]).status, 1);
}

#[test]
fn check_tells_mistakes_as_editors_expect_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = at("service/orders.toml", "attempts = 5");
    let json = at("route/10-a.json", r#"{"authority": "a", "service": "a"}"#);
    let bad = at("route/20-b.toml", "authority = \"b\"\nservise = \"b\"");
    let outcome = pillion(&["policy", "check", &good, &json]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(outcome.stdout, format!("{good}: ok (service/orders)\n{json}: ok (route/10-a)\n"));
    let outcome = pillion(&["policy", "check", &bad, &good]);
    assert_eq!((outcome.status, &*outcome.stdout), (2, &*format!("{good}: ok (service/orders)\n")));
    assert!(outcome.stderr.starts_with(&format!("{bad}:1:1: route: `service` is missing\n")));
    assert!(
        outcome.stderr.contains(&format!("{bad}:2:1: unknown key \"servise\" in [[route]], did"))
    );
    let other = at("orders.toml", "{\"attempts\": 0}");
    let outcome = pillion(&["policy", "check", &other]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("give --key service/NAME or route/ID"), "{}", outcome.stderr);
    let outcome = pillion(&["policy", "check", "--key", "service/orders", &other]);
    assert_eq!(outcome.status, 2);
    assert!(
        outcome.stderr.starts_with(&format!("{other}: service.\"orders\".attempts: found the"))
    );
    let outcome = pillion(&["policy", "put", "route/20-b", &bad, "--etcd", "http://127.0.0.1:1"]);
    assert_eq!(outcome.status, 2, "etcd is not even asked: {}", outcome.stderr);
}
