//! Peers in Python, with gRPC's own library (`tools/setup` installs it into `.venv`).

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

/// The echo service in Python, in a process of its own that ends with the value.
#[derive(Debug)]
pub(crate) struct PythonServer {
    child: Child,
    address: SocketAddr,
}

impl PythonServer {
    /// Answers with `server: NAME` in its initial metadata.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same, with TLS where there are files for it: authority, certificate, key.
    pub(crate) fn start_with(name: &str, pem: &[&Path]) -> Self {
        let mut child = python("echo_server.py")
            .arg(name)
            .args(pem)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("the server prints its port");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls the service that `authority` names in every way; see `echo_client.py`.
pub(crate) async fn call_in_every_way(proxy: SocketAddr, authority: &str) -> Value {
    call_in_every_way_with(proxy, authority, &[]).await
}

/// The same, with TLS where there are files for it: authority, certificate, key.
pub(crate) async fn call_in_every_way_with(
    proxy: SocketAddr,
    authority: &str,
    pem: &[&Path],
) -> Value {
    let mut client = python("echo_client.py");
    client.arg(proxy.to_string()).arg(authority).args(pem);
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the Python client failed:\n{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Calls it once with a retry policy of five attempts after UNAVAILABLE: the status that comes of it.
pub(crate) async fn call_with_retries(proxy: SocketAddr, authority: &str) -> i64 {
    let mut client = python("retrying_client.py");
    client.arg(proxy.to_string()).arg(authority);
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the Python client failed:\n{errors}");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A client in Python with two calls that are not answered to their end; see `patient_client.py`.
#[derive(Debug)]
pub(crate) struct PatientClient {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl PatientClient {
    /// Begins both calls.
    pub(crate) fn start(proxy: SocketAddr, authority: &str) -> Self {
        let mut child = python("patient_client.py")
            .arg(proxy.to_string())
            .arg(authority)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What each of them was told in the end, once `cause` has been given after one of them had begun to
    /// be answered.
    pub(crate) async fn told(mut self, cause: impl FnOnce()) -> Value {
        let mut begun = String::new();
        let (mut client, begun) = tokio::task::spawn_blocking(move || {
            self.lines.read_line(&mut begun).unwrap();
            (self, begun)
        })
        .await
        .unwrap();
        assert_eq!(begun.trim(), "begun");
        cause();
        let told = tokio::task::spawn_blocking(move || {
            let mut told = String::new();
            client.lines.read_line(&mut told).unwrap();
            client.child.wait().unwrap();
            told
        });
        serde_json::from_str(&told.await.unwrap()).unwrap()
    }
}

fn python(script: &str) -> Command {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_setup = home.join(".venv/bin/python");
    assert!(of_setup.exists(), "no {}: run tools/setup", of_setup.display());
    let mut command = Command::new(of_setup);
    command.arg(home.join("tests/peers").join(script)).env("GRPC_VERBOSITY", "NONE");
    command
}

/// Where a program is, if it is installed. Debian keeps some where only root looks for them.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.exists())
}
