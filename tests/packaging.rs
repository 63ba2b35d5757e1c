//! What is installed around the binary fits it: systemd's unit, the compose file, the alerts.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use pillion::{
    cli,
    config::{self, Overrides},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The socket on which systemd hears from its services.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        // Not a wait: only how long a test that fails takes to say so.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut message = [0; 512];
        let length = self.0.recv(&mut message).expect("a message from the process");
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    }
}

/// Ended with the value, whatever the test came to.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_hears_when_the_process_is_ready_reloads_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("services.toml"), "").unwrap();
    let file = "[[source]]\nkind = \"file\"\npath = \"services.toml\"\n";
    fs::write(at("pillion.toml"), file).unwrap();
    let systemd = Supervisor::at(&at("notify"));
    let child = Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(["run", "--workers=1", "--log=off", "--config"])
        .arg(at("pillion.toml"))
        .arg(format!("--listen=unix:{}", at("listener").display()))
        .arg(format!("--admin=unix:{}", at("admin").display()))
        .env("NOTIFY_SOCKET", at("notify"))
        .spawn();
    let mut process = Process(child.unwrap());
    assert_eq!(systemd.hears(), "READY=1");

    process.signal("HUP");
    let reloading = systemd.hears();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
    assert!(time.parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(systemd.hears(), "READY=1");

    process.signal("TERM");
    assert_eq!(systemd.hears(), "STOPPING=1");
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn the_unit_starts_and_reloads_with_commands_that_there_are() {
    let unit = fs::read_to_string(root().join("config/pillion.service")).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    let commands: Vec<&str> = lines.map(|(_, command)| command).collect();
    let ours = commands.iter().filter(|command| command.starts_with("/usr/local/bin/pillion "));
    let ours = ours.map(|command| cli::command().try_get_matches_from(command.split(' ')));
    let ours: Vec<String> =
        ours.map(|matches| matches.unwrap().subcommand_name().unwrap().to_owned()).collect();
    assert_eq!(ours, ["run", "check"]);
}

#[test]
fn the_configurations_of_the_compose_file_can_be_loaded() {
    for name in ["orders", "pay"] {
        let path = root().join(format!("docker/{name}.toml"));
        let loaded = config::load(Some(&path), &Overrides::default()).unwrap();
        assert_eq!(loaded.settings.node.service, name);
    }
}

#[test]
fn prometheus_understands_its_configuration_and_the_alerts() {
    let checked = Command::new("promtool")
        .args(["check", "config", "docker/prometheus.yml"])
        .current_dir(root())
        .output()
        .expect("promtool, which tools/setup installs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
