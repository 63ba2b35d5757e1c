//! The admin address by TLS: whom it lets in, asked by curl, by openssl and by the program itself.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::metrics::Metrics;
use crate::program::{Pillion, Program};
use crate::tls::Authority;
use crate::tls_calls::authority;
use crate::tls_peer::Pair;
use crate::wait::until;

/// Exit status and all that was printed, errors first.
type Said = (Option<i32>, String);

async fn run(program: &str, args: &[&str], input: &'static str) -> Said {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PILLION_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
        (output.status.code(), text)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A program whose admin address is reached by every host, by a certificate of `authority` that names an
/// operator. Its own is for 127.0.0.1.
struct Guarded {
    _pillion: Pillion,
    authority: Authority,
    server: Pair,
    operator: Pair,
    port: String,
    _folder: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let (folder, authority) = authority("ca");
        let server = authority.sign("server");
        let operator = authority.sign_for("operator", "URI:spiffe://prod/ops/anna");
        let (cert, key) = &server;
        let config = format!(
            "[admin.tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {:?}\n\
             allow = [\"spiffe://prod/ops/*\"]\n",
            authority.cert()
        );
        let program = Program::new(&config).endpoints([]).admin("0.0.0.0:0");
        let pillion = program.start_unready().await;
        let port = pillion.admin().rsplit_once(':').unwrap().1.to_owned();
        Self { _pillion: pillion, authority, server, operator, port, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    async fn curl(&self, flags: &[&str], path: &str, pair: Option<&Pair>) -> Said {
        let (ca, url) = (self.authority.cert(), self.url(path));
        let mut args = [flags, &["-sS", "--cacert", text(&ca), &url]].concat();
        if let Some((cert, key)) = pair {
            args.extend(["--cert", text(cert), "--key", text(key)]);
        }
        run("curl", &args, "").await
    }

    /// What curl says of a page, with the status at the end: 000 where there is none.
    async fn ask(&self, path: &str, pair: Option<&Pair>) -> Said {
        self.curl(&["-w", "%{http_code}"], path, pair).await
    }

    async fn metrics(&self) -> Metrics {
        Metrics::read(&self.curl(&[], "/metrics", Some(&self.operator)).await.1)
    }
}

#[tokio::test]
async fn only_a_certificate_with_the_right_name_gets_in_at_an_admin_address_with_mutual_tls() {
    let guarded = Guarded::start().await;
    for path in ["/services", "/ready"] {
        let (status, text) = guarded.ask(path, Some(&guarded.operator)).await;
        assert!(status == Some(0) && text.ends_with("200"), "{path}: {text}");
    }
    let (_folder, strange) = authority("strange");
    let name = "URI:spiffe://prod/ops/anna";
    let (other, stranger) =
        (guarded.authority.sign_for("other", "DNS:other"), strange.sign_for("stranger", name));
    for (who, pair) in [("none", None), ("other", Some(&other)), ("stranger", Some(&stranger))] {
        for path in ["/live", "/services"] {
            let (status, text) = guarded.ask(path, pair).await;
            assert!(status != Some(0) && text.ends_with("000"), "{who}: {path}: {text}");
        }
    }
    // Whoever is refused may know before it is counted.
    for reason in ["no_certificate", "wrong_name", "unknown_ca"] {
        let labels = [("side", "admin"), ("reason", reason)];
        until(&format!("{reason} is counted"), async || {
            guarded.metrics().await.sum("tls_handshake_failures_total", &labels) == 2.0
        })
        .await;
    }
    // Without ALPN, and in the words of HTTP/1.0.
    let ((cert, key), ca) = (&guarded.operator, guarded.authority.cert());
    let address = format!("127.0.0.1:{}", guarded.port);
    let args = ["s_client", "-quiet", "-connect", &address, "-CAfile", text(&ca)];
    let pair = ["-cert", text(cert), "-key", text(key), "-verify_return_error"];
    let (_, answer) =
        run("openssl", &[&args[..], &pair].concat(), "GET /live HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn commands_show_a_certificate_and_say_what_is_missing() {
    let guarded = Guarded::start().await;
    let pillion = env!("CARGO_BIN_EXE_pillion");
    let (url, ca) = (guarded.url(""), guarded.authority.cert());
    let services = ["services", "--admin", &url];
    let (cert, key) = &guarded.operator;
    let ca = ["--admin-ca-file", text(&ca)];
    let pair = ["--admin-cert-file", text(cert), "--admin-key-file", text(key)];
    let said = run(pillion, &[&services[..], &ca, &pair].concat(), "").await;
    assert_eq!(said.0, Some(0), "{}", said.1);
    for (args, advice) in [
        ([&services[..], &ca].concat(), "--admin-cert-file"),
        ([&services[..], &pair].concat(), "--admin-ca-file"),
        (vec!["services", "--admin", &url.replace("https", "http")], "https://"),
    ] {
        let (status, text) = run(pillion, &args, "").await;
        assert!(status == Some(1) && text.contains(advice), "{args:?}: {text}");
    }
    let (status, text) = run(pillion, &[&services[..], &ca, &pair[..2]].concat(), "").await;
    assert!(status == Some(2) && text.contains("--admin-key-file"), "{text}");
}

#[tokio::test]
async fn a_certificate_of_the_admin_address_that_changes_is_read_again() {
    let guarded = Guarded::start().await;
    let (cert, key) = guarded.authority.sign("next");
    // The key of one with the certificate of another is never in use.
    for (from, to) in [(key, &guarded.server.1), (cert, &guarded.server.0)] {
        let new = to.with_extension("new");
        fs::copy(from, &new).unwrap();
        fs::rename(new, to).unwrap();
    }
    until("they are read", async || {
        guarded.metrics().await.sum("tls_reloads_total", &[("result", "ok")]) >= 1.0
    })
    .await;
    assert!(guarded.ask("/ready", Some(&guarded.operator)).await.1.ends_with("200"));
}

#[tokio::test]
async fn tls_that_asks_for_no_certificate_does_not_open_the_admin_address_to_others() {
    let (folder, authority) = authority("ca");
    let (cert, key) = authority.sign("server");
    let file = folder.path().join("pillion.toml");
    let config = |address: &str| {
        format!("[admin]\naddress = {address:?}\n[admin.tls]\ncert = {cert:?}\nkey = {key:?}\n")
    };
    fs::write(&file, config("0.0.0.0:0")).unwrap();
    let check = ["check", "-c", text(&file)];
    let (status, said) = run(env!("CARGO_BIN_EXE_pillion"), &check, "").await;
    assert!(status == Some(2) && said.contains("lets other hosts in"), "{said}");
    assert!(said.contains("`client_ca` in [admin.tls]"), "{said}");
    fs::write(&file, config("127.0.0.1:0")).unwrap();
    assert_eq!(run(env!("CARGO_BIN_EXE_pillion"), &check, "").await.0, Some(0));
}
