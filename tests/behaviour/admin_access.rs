//! Who may ask the admin address, and for what.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::wait::{soon, until};

const TOKEN: &str = "open-sesame-0123456789";

/// Status and all of the answer to a request with these lines.
async fn ask(admin: &str, lines: &[&str]) -> (u16, String) {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    let request = format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n"));
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", tcp.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect(&answer), answer)
}

/// The program itself, asked as an operator would.
fn pillion(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PILLION_")) {
        command.env_remove(name);
    }
    let output = command.args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn an_address_that_other_hosts_reach_is_refused_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pillion.toml");
    fs::write(&file, "[admin]\naddress = \"0.0.0.0:0\"\n").unwrap();
    let path = file.to_str().unwrap();
    let (status, text) = pillion(&["run", "-c", path]);
    assert_eq!(status, Some(2), "{text}");
    assert!(
        text.contains("pillion.toml:2:11: admin.address: 0.0.0.0:0 lets other hosts in"),
        "{text}"
    );
    assert!(text.contains("token_file"), "{text}");
    let (status, text) = pillion(&["check", "-c", path]);
    assert_eq!(status, Some(2), "{text}");
    let (status, text) = pillion(&["run", "--admin", "[::]:0"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("--admin: [::]:0 lets other hosts in"), "{text}");
    fs::write(folder.path().join("token"), "short").unwrap();
    fs::write(&file, "[admin]\naddress = \"0.0.0.0:0\"\ntoken_file = \"token\"\n").unwrap();
    let (status, text) = pillion(&["check", "-c", path]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains(":3:14: admin.token_file") && text.contains("16 to 4096"), "{text}");
}

#[tokio::test]
async fn with_a_token_others_learn_no_more_than_whether_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let config = format!("[admin]\ntoken_file = {file:?}");
    let pillion = Program::new(&config).endpoints([]).start().await;
    for path in ["/services", "/metrics", "/config", "/why?authority=a", "/calls", "/nothing"] {
        let page = pillion.get(path).await;
        assert_eq!(page.status, 401, "{path}: {}", page.text);
        assert!(page.head.contains("www-authenticate: bearer"), "{}", page.head);
    }
    assert_eq!(pillion.ask("POST", "/drain").await.status, 401);
    assert_eq!(pillion.get("/ready").await.text, "ready\n");
    let admin = pillion.admin();
    let authorization = format!("authorization: Bearer {TOKEN}");
    let (status, _) = ask(admin, &["GET /services HTTP/1.1", "host: pod-7", &authorization]).await;
    assert_eq!(status, 200);

    let url = format!("http://{admin}");
    let services = ["services", "--admin", &url];
    let (status, text) = self::pillion(&services);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("--admin-token-file"), "{text}");
    let token = ["--admin-token-file", file.to_str().unwrap()];
    let (status, text) = self::pillion(&[&services[..], &token].concat());
    assert_eq!(status, Some(0), "{text}");
}

#[tokio::test]
async fn a_page_in_a_browser_of_the_host_reads_nothing_and_changes_nothing() {
    let pillion = Pillion::start("[admin]\nhosts = [\"pillion.internal\"]", []).await;
    let admin = pillion.admin();
    let port = admin.rsplit_once(':').unwrap().1;
    let (status, answer) = ask(admin, &["GET /services HTTP/1.1", "host: evil.example"]).await;
    assert_eq!(status, 421, "{answer}");
    assert!(answer.contains("evil.example") && answer.contains("hosts"), "{answer}");
    for host in [admin, &format!("localhost:{port}"), "pillion.internal"] {
        let (status, answer) =
            ask(admin, &["GET /services HTTP/1.1", &format!("host: {host}")]).await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
    let change = |more: &'static str| async move {
        let lines = ["PUT /log?level=warn HTTP/1.1", "host: localhost", "content-length: 0", more];
        ask(admin, &lines[..if more.is_empty() { 3 } else { 4 }]).await.0
    };
    assert_eq!(change("origin: https://evil.example").await, 403);
    assert_eq!(change("sec-fetch-site: cross-site").await, 403);
    assert_eq!(change("user-agent: curl/8").await, 200);
    assert_eq!(change("").await, 200);
    let form = [
        "POST /drain HTTP/1.1",
        "host: localhost",
        "content-type: application/x-www-form-urlencoded",
        "content-length: 3\r\n\r\na=b",
    ];
    assert_eq!(ask(admin, &form).await.0, 403);
    assert_eq!(pillion.get("/ready").await.status, 200, "it does not drain");
}

#[tokio::test]
async fn a_unix_socket_has_the_permissions_that_are_configured() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let mode = |name: &str| {
        let meta = fs::metadata(folder.path().join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    let config =
        format!("[[listener]]\naddress = {:?}\nmode = \"0600\"\n[admin]\nmode = \"666\"", at("l"));
    let pillion =
        Program::new(&config).endpoints([]).listen(&at("l")).admin(&at("a")).start().await;
    assert_eq!((mode("l"), mode("a")), (0o600, 0o666));
    drop(pillion);
    let _usual = Program::new("").endpoints([]).listen(&at("m")).admin(&at("b")).start().await;
    assert_eq!((mode("m"), mode("b")), (0o660, 0o660));
}

#[tokio::test]
async fn whoever_holds_all_connections_does_not_keep_an_operator_out() {
    let pillion = Pillion::start("", []).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(pillion.admin()).await.unwrap());
    }
    assert_eq!(pillion.get("/live").await.status, 200);
    let first = soon("the oldest is closed", idle[0].read(&mut [0; 1])).await;
    assert!(matches!(first, Ok(0) | Err(_)), "{first:?}");
    let large = format!("x: {}", "y".repeat(64 << 10));
    let (status, _) =
        ask(pillion.admin(), &["GET /live HTTP/1.1", "host: localhost", &large]).await;
    assert_eq!(status, 431);
}

#[tokio::test]
async fn secrets_are_in_no_page_no_log_and_no_error() {
    let etcd = Etcd::start_with(&["--bcrypt-cost", "4"]).await;
    etcd.allow("reader", "right-password-77", "orders/").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let secrets = ["right-password-77", "wrong-password-88", TOKEN];
    let (right, wrong) = (file("right", secrets[0]), file("wrong", secrets[1]));
    let token = file("token", TOKEN);
    let url = etcd.url();
    let source = |name: &str, password: &std::path::Path| {
        format!(
            "[[source]]\nname = {name:?}\nmode = \"eager\"\nprefix = \"orders\"\nendpoints = [{url:?}]\n\
             username = \"reader\"\npassword_file = {password:?}\n"
        )
    };
    let admin = format!("[admin]\ntoken_file = {token:?}\n");
    let config = admin + &source("right", &right) + &source("wrong", &wrong);
    let pillion = Program::new(&config).start_unready().await;
    let authorization = format!("authorization: Bearer {TOKEN}");
    let trace = ["PUT /log?level=trace HTTP/1.1", "host: localhost", &authorization];
    assert_eq!(ask(pillion.admin(), &trace).await.0, 200);
    let told = |log: &str| log.contains("TRACE") && log.contains("authentication failed");
    until("the wrong password is told", async || told(&pillion.log())).await;
    let mut seen = String::new();
    for path in
        ["/config", "/ready", "/metrics", "/services", "/services/orders", "/why?authority=orders"]
    {
        let line = format!("GET {path} HTTP/1.1");
        for authorization in [&*authorization, "authorization: Bearer wrong"] {
            seen += &ask(pillion.admin(), &[&line, "host: localhost", authorization]).await.1;
        }
    }
    assert!(seen.contains("wrong") && seen.contains("reader"), "{seen}");
    let log = pillion.log();
    for secret in secrets {
        for (what, text) in [("a page", &seen), ("the log", &log)] {
            assert!(!text.contains(secret), "{secret} in {what}");
        }
    }
}
