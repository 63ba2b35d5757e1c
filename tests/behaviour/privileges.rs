//! Who the process is, and that it does not become root again. What needs root to begin with is skipped
//! where the tests do not run as root.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output},
};

use rustix::process::{Signal, geteuid};

use crate::backend::Backend;
use crate::client::{Client, grpc, message};
use crate::namespaces::Namespaces;
use crate::program::Program;

/// A user that every Linux has, by number: names differ.
const NOBODY: u32 = 65534;
const AS_NOBODY: &str = "user = \"65534\"\ngroup = \"65534\"\n";

/// Whether the tests may become somebody else.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: it takes root to give it up");
    }
    is_root
}

/// Runs the program until it ends.
fn run(before: &[&str], args: &[&str]) -> Output {
    let line: Vec<&str> = [before, &[env!("CARGO_BIN_EXE_pillion")], args].concat();
    Command::new(line[0]).args(&line[1..]).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The values of a line of /proc/PID/status, of every thread.
fn status(process: u32, name: &str) -> Vec<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().map(str::to_owned).collect()
    };
    threads.map(of).collect()
}

fn readable_by_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn root_is_given_up_for_good_once_it_listens() {
    if !is_root() {
        return;
    }
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(why) => return eprintln!("skipped: no network namespaces here: {why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    readable_by_all(folder.path());
    let socket = folder.path().join("pillion.sock");
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let config = format!("{AS_NOBODY}state_dir = {state:?}\n");
    let mut pillion = Program::new(&config)
        .endpoints([])
        .readable_by_all()
        .by(&namespaces.near())
        // A port that only root may have.
        .listen("127.0.0.1:443")
        .listen(&format!("unix:{}", socket.display()))
        .admin(&format!("unix:{}", folder.path().join("admin.sock").display()))
        .start()
        .await;

    let nobody = vec![NOBODY.to_string(); 4];
    for ids in ["Uid", "Gid"] {
        let of_threads = status(pillion.id(), ids);
        assert!(of_threads.len() >= 3, "control and two workers");
        assert!(of_threads.iter().all(|ids| *ids == nobody), "{ids}: {of_threads:?}");
    }
    for (name, value) in [
        ("Groups", "65534"),
        ("CapEff", NONE),
        ("CapPrm", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        let of_threads = status(pillion.id(), name);
        assert!(of_threads.iter().all(|found| *found == [value]), "{name}: {of_threads:?}");
    }
    let owner = fs::metadata(&socket).unwrap();
    assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o777), (NOBODY, NOBODY, 0o660));

    // It still knows itself, reads what has changed, and ends in good order.
    let metrics = pillion.get("/metrics").await.text;
    assert!(metrics.contains("process_open_fds") && metrics.contains("process_resident_memory"));
    let answer = Client::connect_unix(&socket).await.send(grpc("echo"), &message(b"")).await;
    assert_eq!(answer.unwrap().header("pillion-error"), Some("no_endpoints"));
    pillion.signal(Signal::HUP);
    let reloads = [("result", "ok")];
    pillion.until_metrics("it reloads", |m| m.sum("config_reloads_total", &reloads) == 1.0).await;
    assert!(!pillion.log().contains("WARN"), "{}", pillion.log());
    pillion.signal(Signal::TERM);
    assert!(pillion.ended().await.success());
}

const NONE: &str = "0000000000000000";

#[tokio::test]
async fn nobody_s_memory_is_written_to_disk_and_nobody_gains_privileges() {
    let backend = Backend::echo().await;
    let pillion = Program::new("").endpoints([backend.as_endpoint("echo")]).start().await;
    assert!(Client::connect(pillion.address()).await.call("echo").await.is_ok());
    let limits = fs::read_to_string(format!("/proc/{}/limits", pillion.id())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    assert!(status(pillion.id(), "NoNewPrivs").iter().all(|of_thread| *of_thread == ["1"]));
    let warnings = pillion.log().matches("runs as root").count();
    assert_eq!(warnings, usize::from(geteuid().is_root()), "once, and to root alone");
}

#[test]
fn files_that_the_user_may_not_read_are_all_told_before_a_call_is_served() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    readable_by_all(folder.path());
    let path = |name: &str| folder.path().join(name);
    fs::write(path("token"), "0123456789abcdef").unwrap();
    fs::set_permissions(path("token"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(path("state")).unwrap();
    let config = format!(
        "{AS_NOBODY}state_dir = \"state\"\n[admin]\naddress = \"127.0.0.1:0\"\ntoken_file = \"token\"\n"
    );
    fs::write(path("pillion.toml"), config).unwrap();
    let output =
        run(&[], &["run", "--listen=127.0.0.1:0", "-c", path("pillion.toml").to_str().unwrap()]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in ["user \"65534\" cannot use", "admin.token_file = ", "/token: Perm", "state_dir = "]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains(" serving "), "{told}");
}

#[test]
fn only_root_becomes_somebody_else() {
    let as_daemon = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups"];
    let before: &[&str] = if geteuid().is_root() { &as_daemon } else { &[] };
    let args = ["run", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--group=65534"];
    let output = run(before, &[&args[..], &["--user=65534"]].concat());
    let told = told(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("only root can become that"), "{told}");
}

#[test]
fn a_user_that_there_is_not_is_told_before_a_socket_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("pillion.toml"), folder.path().join("socket"));
    let file = file.to_str().unwrap();
    fs::write(file, "\nuser = \"no-such-user\"").unwrap();
    let listen = format!("--listen=unix:{}", socket.display());
    for args in [&["check", "-c", file][..], &["run", &listen, "-c", file]] {
        let output = run(&[], args);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!("{file}:2:8: user: \"no-such-user\" is no user of this machine");
        assert!(told(&output).starts_with(&expected), "{}", told(&output));
    }
    let output = run(&[], &["run", &listen, "--user=root", "--group=no-such-group"]);
    assert!(told(&output).contains("user and group: \"no-such-group\" is no group"));
    let output = run(&[], &["run", &listen, "--group=root"]);
    assert!(told(&output).contains("`group` needs `user`"));
    assert!(!socket.exists());
}
