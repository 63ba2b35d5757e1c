//! The commands that ask a running program, and the demo.

use std::process::{Command, Output};

use crate::client::Client;
use crate::program::{Pillion, endpoint};

async fn pillion(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
    command.args(args);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

pub(crate) async fn text(args: &[&str]) -> String {
    let output = pillion(args).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn services_and_why_tell_what_the_program_knows() {
    let endpoints = [
        endpoint("orders", "10.0.0.1:80".parse().unwrap(), "version = \"v1\""),
        endpoint("orders", "10.0.0.2:80".parse().unwrap(), "version = \"v2\"\nweight = 300"),
    ];
    let program = Pillion::start("", endpoints).await;
    let admin = ["--admin", &format!("http://{}", program.admin())];
    let ask = async |args: &[&str]| text(&[args, &admin].concat()).await;
    assert!(ask(&["services"]).await.contains("orders"));
    let orders = ask(&["services", "orders"]).await;
    assert!(orders.contains("10.0.0.1:80") && orders.contains("10.0.0.2:80"), "{orders}");
    let why = ask(&["why", "orders"]).await;
    assert!(why.contains("75") && why.contains("25"), "{why}");
    let why = ask(&["why", "orders", "-H", "pillion-filter: version=v2"]).await;
    assert!(why.contains("10.0.0.2:80") && why.contains("100"), "{why}");
    let json = ask(&["why", "orders@10.0.0.1:80", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["candidates"][0]["address"], "10.0.0.1:80");
}

#[tokio::test]
async fn an_address_in_use_ends_the_program_with_a_sentence() {
    let program = Pillion::start("", []).await;
    let address = program.address().to_string();
    let output = pillion(&["run", "--listen", &address, "--admin", "127.0.0.1:0"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(Client::connect(program.address()).await.call("nowhere").await.grpc_status().is_some());
}

#[tokio::test]
async fn the_demo_tells_its_story_and_loses_no_call() {
    let story = text(&["demo", "--seconds", "3"]).await;
    for line in ["echo-3 dies", "echo-3 is back", " 0 failed."] {
        assert!(story.contains(line), "{line:?} is not in\n{story}");
    }
    assert!(!story.contains(" 0 needed another endpoint"), "{story}");
}
