//! A fresh connection for each call, thousands a second to one endpoint, between two hosts: whether
//! the ports last.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::namespaces::Namespaces;
use crate::program::{Pillion, Program, endpoint};
use crate::python::find_program;
use crate::wait::until;

const PORT: u16 = 8080;

/// The endpoint on the far side: nghttpd, which serves a folder.
struct Server(Child);

impl Server {
    async fn start(namespaces: &Namespaces, folder: &Path) -> Self {
        std::fs::write(folder.join("page"), "hello").unwrap();
        let mut command = in_namespace(namespaces.far(), "nghttpd");
        command.args(["--no-tls", "--workers=1", "-d"]).arg(folder).arg(PORT.to_string());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let listening = format!(":{PORT:04X} ");
        until("nghttpd listens", async || {
            let table = in_namespace(namespaces.far(), "cat").arg("/proc/net/tcp").output();
            String::from_utf8(table.unwrap().stdout).unwrap().contains(&listening)
        })
        .await;
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_namespace(prefix: [&str; 4], program: &str) -> Command {
    let program = find_program(program).unwrap_or_else(|| panic!("no {program}: run tools/setup"));
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).arg(program);
    command
}

/// How many of so many calls succeeded and how many did not, at most `rate` a second.
async fn load(namespaces: &Namespaces, pillion: &Pillion, calls: u32, rate: u32) -> (u32, u32) {
    let clients = 8;
    let mut command = in_namespace(namespaces.near(), "h2load");
    command
        .args(["-t1", &format!("-c{clients}"), "-m8", "-H", ":authority: web"])
        .arg(format!("--rps={}", rate / clients))
        .arg(format!("-n{calls}"))
        .arg(format!("http://{}/page", pillion.address()));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    // requests: 15000 total, 15000 started, 15000 done, 15000 succeeded, 0 failed, 0 errored, ...
    let line = report.lines().find(|line| line.starts_with("requests:")).expect(&report);
    let count = |what: &str| {
        let part = line.split(',').find(|part| part.trim().ends_with(what)).expect(line);
        part.split_whitespace().find_map(|word| word.parse::<u32>().ok()).expect(line)
    };
    let statuses = report.lines().find(|line| line.starts_with("status codes:")).expect(&report);
    assert!(statuses.contains(&format!(" {} 2xx", count("succeeded"))), "{report}");
    (count("succeeded"), count("failed") + count("errored") + count("timeout"))
}

/// Calls at `rate` a second where the machine can, all of which must succeed; how long they took. None where it
/// is skipped.
async fn sustain(calls: u32, rate: u32) -> Option<Duration> {
    let namespaces = Namespaces::new()
        .inspect_err(|why| eprintln!("skipped: network namespaces are not allowed here: {why}"))
        .ok()?;
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start(&namespaces, folder.path()).await;
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let address = format!("{}:{PORT}", Namespaces::FAR).parse().unwrap();
    let program =
        Program::new("[defaults]\nconnection = \"fresh\"\nattempts = 1\nconnect_timeout = \"20s\"");
    let program = program.endpoints([endpoint("web", address, "")]).admin(&admin);
    let pillion = program.by(&namespaces.near()).start().await;
    let began = Instant::now();
    let (succeeded, failed) = load(&namespaces, &pillion, calls, rate).await;
    let took = began.elapsed();
    let metrics = pillion.metrics().await;
    let connections = metrics.sum("upstream_connections_opened_total", &[]);
    assert_eq!((succeeded, failed), (calls, 0));
    assert!(connections >= f64::from(succeeded), "{connections} for {succeeded} calls");
    // Each would keep a port for a minute.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(namespaces.time_wait(), 0);
    Some(took)
}

#[tokio::test]
async fn closed_connections_leave_no_port_in_time_wait() {
    // As much as a build without optimisation can take beside other tests.
    sustain(1_200, 400).await;
}

#[tokio::test]
#[ignore = "a minute, and a build that is optimised; `make test-long`"]
async fn five_thousand_calls_a_second_go_to_one_endpoint_for_a_minute() {
    let took = sustain(300_000, 5_000).await;
    assert!(took.is_none_or(|took| took < Duration::from_secs(61)), "{took:?}");
}
