//! What a host does to the processes on it: little CPU, no threads, a clock that jumps, a sudden end,
//! everybody at once.

use std::{
    fs,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::{net::TcpStream, time::sleep};

use crate::backend::Backend;
use crate::cgroup::Group;
use crate::client::{Answer, Client, grpc, grpc_with, message};
use crate::clock::{Clock, off};
use crate::etcd::Etcd;
use crate::flow::Flow;
use crate::program::{Pillion, Program};
use crate::scene::{age, backends, proxy, source, until_ready};
use crate::wait::{SOON, soon, until};

#[tokio::test]
async fn with_a_tenth_of_a_cpu_no_call_is_lost_and_no_peer_taken_for_dead() {
    let tenth = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "10000")];
    let group = match Group::new("cpu", &tenth) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let etcd = Etcd::start().await;
    let _backends = backends(&etcd, 3).await;
    let pillion = proxy(&etcd.url(), "[defaults]\nconnection = \"pooled\"").await;
    let flow = Flow::start(&pillion, "orders").await;
    until("it is proved", async || age(&pillion).await < 6.0).await;
    group.take(pillion.id());
    // Twice as long as etcd may be silent before it is given up.
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        flow.more().await;
    }
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("source_troubles_total", &[]), 0.0);
    assert_eq!(metrics.sum("source_up", &[]), 1.0);
    until_ready(&pillion, 3).await;
    let lost =
        metrics.sum("attempts_total", &[]) - metrics.sum("attempts_total", &[("outcome", "ok")]);
    assert_eq!(lost, 0.0, "attempts that failed");
    until("it is proved", async || age(&pillion).await < 6.0).await;
    flow.end().await;
    drop(pillion);
}

#[test]
fn without_threads_for_its_workers_it_does_not_start_and_says_so() {
    let group = match Group::new("pids", &[("pids.max", "2")]) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let by = group.by();
    let output = Command::new(&by[0])
        .args(&by[1..])
        .args([env!("CARGO_BIN_EXE_pillion"), "run", "--workers", "8"])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no thread for worker"), "{said}");
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_ends_no_call_and_makes_nothing_old() {
    let clock = Clock::new();
    let etcd = Etcd::start().await;
    let _backends = backends(&etcd, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("state_dir = {:?}\naccess_log = \"json\"\n", folder.path());
    let by = clock.by();
    let program = Program::new(&(config + &source(&etcd.url(), "")));
    let pillion = program.by(&by.each_ref().map(String::as_str)).start().await;
    let flow = Flow::start(&pillion, "orders").await;
    until_ready(&pillion, 2).await;
    let client = Client::connect(pillion.address()).await;
    let headers = [("grpc-timeout", "5M")];
    let mut open = client.begin(grpc_with("orders", &headers)).await;
    for seconds in [3600, -3600, 0] {
        clock.set(seconds);
        until("the clock has jumped", async || {
            let output = pillion.output();
            let off = output.lines().last().and_then(off);
            off.is_some_and(|off| (off - seconds as f64).abs() < 600.0)
        })
        .await;
        flow.more().await;
        until("what is known is proved", async || age(&pillion).await < 6.0).await;
    }
    open.body.send_data(Bytes::from(message(b"hello")), true).unwrap();
    assert!(soon("the answer", Answer::read(open.answer)).await.unwrap().is_ok());
    let metrics = pillion.metrics().await;
    assert_eq!(metrics.sum("source_troubles_total", &[]), 0.0);
    assert_eq!(metrics.sum("downstream_limited_total", &[]), 0.0);
    until_ready(&pillion, 2).await;
    flow.end().await;
}

/// Who calls `orders` on one connection after the other, as clients do whose proxy is restarted.
struct Stubborn {
    stop: AtomicBool,
    answered: AtomicUsize,
    /// Answers that were errors. A connection that breaks gives none.
    wrong: Mutex<Vec<String>>,
}

impl Stubborn {
    async fn call(&self, address: std::net::SocketAddr) {
        while !self.stop.load(Relaxed) {
            let Ok(tcp) = TcpStream::connect(address).await else {
                sleep(Duration::from_millis(2)).await;
                continue;
            };
            let Ok((mut send, connection)) = h2::client::handshake(tcp).await else { continue };
            let connection = tokio::spawn(connection);
            while !self.stop.load(Relaxed) {
                let Ok(ready) = send.ready().await else { break };
                send = ready;
                let Ok((answer, mut body)) = send.send_request(grpc("orders"), false) else {
                    break;
                };
                if body.send_data(Bytes::from(message(b"hello")), true).is_err() {
                    break;
                }
                match soon("an answer or none", Answer::read(answer)).await {
                    Ok(answer) if answer.is_ok() => drop(self.answered.fetch_add(1, Relaxed)),
                    Ok(answer) => self.wrong.lock().unwrap().push(format!("{answer:?}")),
                    Err(_) => break,
                }
            }
            connection.abort();
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_killed_under_load_is_back_with_what_it_had_saved() {
    let mut etcd = Etcd::start().await;
    let _backends = backends(&etcd, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("state_dir = {:?}\n{}", folder.path(), source(&etcd.url(), ""));
    let mut pillion = Program::new(&config).start().await;
    let address = pillion.address();
    let callers = Arc::new(Stubborn {
        stop: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
        wrong: Mutex::default(),
    });
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let callers = Arc::clone(&callers);
            tokio::spawn(async move { callers.call(address).await })
        })
        .collect();
    let more = async || {
        let before = callers.answered.load(Relaxed);
        until("calls are answered", async || callers.answered.load(Relaxed) > before + 20).await;
    };
    more().await;
    until("the set is saved", async || {
        let saved = fs::read_to_string(folder.path().join("main.json")).unwrap_or_default();
        saved.matches("\"address\"").count() == 3
    })
    .await;
    etcd.kill();
    more().await;
    pillion.signal(Signal::KILL);
    pillion.ended().await;
    let killed = Instant::now();
    let again = Program::new(&config).listen(&address.to_string()).start().await;
    println!("ready {:?} after it was killed", killed.elapsed());
    more().await;
    callers.stop.store(true, Relaxed);
    for call in calls {
        call.await.unwrap();
    }
    let wrong = callers.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} answers were errors: {:?}", wrong.len(), wrong.first());
    drop(again);
}

#[tokio::test]
async fn a_thousand_clients_that_come_at_once_are_all_served() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let backend = Backend::echo().await;
    let config = "[defaults]\nconnection = \"pooled\"";
    let pillion = Pillion::start(config, [backend.as_endpoint("orders")]).await;
    let flow = Flow::start(&pillion, "orders").await;
    let before = pillion.open_files();
    let come = (0..1000).map(|_| async {
        let client = Client::connect(pillion.address()).await;
        assert!(client.call("orders").await.is_ok());
        client
    });
    let began = Instant::now();
    let clients = tokio::time::timeout(3 * SOON, join_all(come)).await.expect("all are served");
    println!("1000 clients had their answers after {:?}", began.elapsed());
    let limited = pillion.metrics().await.sum("downstream_limited_total", &[]);
    assert_eq!(limited, 0.0);
    drop(clients);
    until("their files are closed", async || pillion.open_files() <= before + 2).await;
    flow.end().await;
}
