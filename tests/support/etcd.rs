//! A real etcd of one's own: started on free ports in a temporary folder, ended with the value.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::{
    Certificate, Client, ConnectOptions, DeleteOptions, Identity, Permission, PutOptions,
    TlsOptions,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// One etcd, and the folder that holds its data.
#[derive(Debug)]
pub(crate) struct Etcd {
    folder: TempDir,
    data: PathBuf,
    name: String,
    /// `name=peer URL` of all members.
    members: Vec<String>,
    /// Tells clusters apart that follow each other on one address.
    token: String,
    host: &'static str,
    before: Vec<String>,
    client_port: u16,
    peer_port: u16,
    scheme: &'static str,
    /// `name=peer URL` of all members, where it is not alone.
    arguments: Vec<String>,
    /// Client URL of the etcd that this is only a grpc-proxy of.
    behind: Option<String>,
    child: Option<Child>,
}

impl Etcd {
    /// An etcd that answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// An etcd with further command line arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..5 {
            let mut etcd = Self::stopped();
            etcd.arguments = arguments.iter().map(ToString::to_string).collect();
            etcd.spawn();
            if etcd.answers().await {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    /// An etcd that serves TLS with `cert` and `key`.
    pub(crate) async fn start_tls(cert: &Path, key: &Path) -> Self {
        Self::start_tls_with(cert, key, &[]).await
    }

    /// The same with further command line arguments.
    pub(crate) async fn start_tls_with(cert: &Path, key: &Path, arguments: &[&str]) -> Self {
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let mut etcd = Self::stopped();
        etcd.scheme = "https";
        etcd.arguments = vec![file("cert-file", cert), file("key-file", key)];
        etcd.arguments.extend(arguments.iter().map(ToString::to_string));
        etcd.spawn();
        etcd
    }

    /// A client over TLS, once it answers.
    pub(crate) async fn tls_client(&self, ca: &Path, cert: &Path, key: &Path) -> Client {
        let read = |path: &Path| std::fs::read(path).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(ca)))
            .identity(Identity::from_pem(read(cert), read(key)));
        let options = ConnectOptions::new().with_tls(tls);
        let mut client = Client::connect([self.url()], Some(options)).await.unwrap();
        for _ in 0..200 {
            if client.get("\0", None).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        client
    }

    /// An etcd yet to be started, whose address is known already.
    pub(crate) fn stopped() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (client_port, peer_port) = (free_port(), free_port());
        Self {
            name: "default".to_owned(),
            members: vec![format!("default={}", peer_url(peer_port))],
            token: data.display().to_string(),
            host: "127.0.0.1",
            before: Vec::new(),
            folder,
            data,
            client_port,
            peer_port,
            scheme: "http",
            arguments: Vec::new(),
            behind: None,
            child: None,
        }
    }

    /// etcd's own proxy in front of this one (`etcd grpc-proxy`), which lets its clients share watches.
    pub(crate) async fn grpc_proxy(&self) -> Self {
        let mut proxy = Self::stopped();
        proxy.behind = Some(self.url());
        proxy.spawn();
        assert!(proxy.answers().await, "the grpc-proxy does not start");
        proxy
    }

    /// One that listens at another address, started by this command.
    pub(crate) async fn start_by(command: &[&str], host: &'static str) -> Self {
        let mut etcd = Self::stopped();
        etcd.host = host;
        etcd.before = command.iter().map(ToString::to_string).collect();
        etcd.spawn();
        assert!(etcd.answers().await, "etcd does not start");
        etcd
    }

    /// Three members of one cluster, with further command line arguments.
    pub(crate) async fn cluster(arguments: &[&str]) -> [Self; 3] {
        for _ in 0..5 {
            let mut members = [Self::stopped(), Self::stopped(), Self::stopped()];
            let token = members[0].token.clone();
            for (member, name) in members.iter_mut().zip(["one", "two", "three"]) {
                member.name = name.to_owned();
                member.token.clone_from(&token);
                member.arguments = arguments.iter().map(ToString::to_string).collect();
            }
            let all = members.iter().map(|m| format!("{}={}", m.name, peer_url(m.peer_port)));
            let all: Vec<_> = all.collect();
            for member in &mut members {
                member.members.clone_from(&all);
                member.spawn();
            }
            let [one, two, three] = &mut members;
            if one.answers().await && two.answers().await && three.answers().await {
                return members;
            }
        }
        panic!("the cluster does not start");
    }

    /// Client URL.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// `host:port` of the client URL.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same ports and data, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.answers().await, "etcd does not start again");
    }

    /// Starts it again without any data: another cluster at the same address.
    pub(crate) async fn wipe(&mut self) {
        self.kill();
        self.data = self.folder.path().join(format!("data-{}", fastrand::u64(..)));
        self.token = self.data.display().to_string();
        self.restart().await;
    }

    /// Starts it again at the client address of another one, which has ended.
    pub(crate) async fn take_over(&mut self, other: &Self) {
        self.kill();
        self.client_port = other.client_port;
        self.restart().await;
    }

    /// Ends it and keeps a copy of its data, which [`Self::restore`] goes back to.
    pub(crate) fn back_up(&mut self) {
        self.kill();
        copy(&self.data, &self.folder.path().join("backup"));
    }

    /// Ends it, and starts it on the data of [`Self::back_up`].
    pub(crate) async fn restore(&mut self) {
        self.kill();
        self.data = self.folder.path().join("backup");
        self.restart().await;
    }

    /// Stops it from running, with its connections left open.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        // Its threads go on until each has learned of it, which takes a while on a busy machine.
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("etcd runs").id());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// A client with time limits.
    pub(crate) async fn client(&self) -> Client {
        let limit = Duration::from_secs(5);
        let options = ConnectOptions::new().with_timeout(limit).with_connect_timeout(limit);
        Client::connect([self.url()], Some(options)).await.unwrap()
    }

    /// Puts a key.
    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.client().await.put(key, value, None).await.unwrap();
    }

    /// Puts a key under a lease of `ttl` seconds that nobody keeps alive.
    pub(crate) async fn put_leased(&self, key: &str, value: &str, ttl: i64) {
        let mut client = self.client().await;
        let lease = client.lease_grant(ttl, None).await.unwrap().id();
        client.put(key, value, Some(PutOptions::new().with_lease(lease))).await.unwrap();
    }

    /// Puts a key as a user.
    pub(crate) async fn put_as(&self, user: &str, password: &str, key: &str, value: &str) {
        let options = ConnectOptions::new().with_user(user, password);
        let mut client = Client::connect([self.url()], Some(options)).await.unwrap();
        client.put(key, value, None).await.unwrap();
    }

    /// Turns authentication on, with `root` (password `root`) and a user who may read `prefix`.
    pub(crate) async fn allow(&self, user: &str, password: &str, prefix: &str) {
        let mut client = self.client().await;
        client.user_add("root", "root", None).await.unwrap();
        client.role_add("root").await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.role_add("reader").await.unwrap();
        let read = Permission::read(prefix).with_prefix();
        client.role_grant_permission("reader", read).await.unwrap();
        client.user_add(user, password, None).await.unwrap();
        client.user_grant_role(user, "reader").await.unwrap();
        client.auth_enable().await.unwrap();
    }

    /// Deletes a key.
    pub(crate) async fn delete(&self, key: &str) {
        self.client().await.delete(key, None).await.unwrap();
    }

    /// Deletes all keys under a prefix, in one revision.
    pub(crate) async fn delete_prefix(&self, prefix: &str) {
        let all = DeleteOptions::new().with_prefix();
        self.client().await.delete(prefix, Some(all)).await.unwrap();
    }

    /// Forgets all revisions but the last.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let revision = client.get("\0", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
    }

    /// How many calls of a gRPC method it has answered since its start.
    pub(crate) async fn calls(&self, method: &str) -> u64 {
        let metrics = timeout(Duration::from_secs(5), self.metrics()).await.unwrap();
        let label = format!("grpc_method=\"{method}\"");
        let handled = metrics
            .lines()
            .filter(|line| line.starts_with("grpc_server_handled_total{") && line.contains(&label));
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64;
        handled.map(count).sum()
    }

    async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let request = "GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn spawn(&mut self) {
        if let Some(behind) = &self.behind {
            let address = self.address();
            let child = Command::new("etcd")
                .args(["grpc-proxy", "start", "--endpoints", behind, "--data-dir"])
                .arg(&self.data)
                .args(["--listen-addr", &address, "--advertise-client-url", &address])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            self.child = Some(child.expect("etcd is installed"));
            return;
        }
        let (peer, client) = (peer_url(self.peer_port), self.url());
        let mut command = self.before.clone();
        command.push("etcd".to_owned());
        let child = Command::new(&command[0])
            .args(&command[1..])
            .args(["--name", &self.name, "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.members.join(",")])
            .args(["--initial-cluster-token", &self.token])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(["--logger", "zap", "--log-level", "panic"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("etcd is installed"));
    }

    async fn answers(&mut self) -> bool {
        for _ in 0..200 {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            if TcpStream::connect(self.address()).await.is_ok()
                && self.client().await.get("\0", None).await.is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("etcd runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn peer_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}
