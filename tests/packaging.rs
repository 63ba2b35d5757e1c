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
fn the_unit_takes_away_all_that_the_program_does_not_need() {
    let unit = fs::read_to_string(root().join("config/pillion.service")).unwrap();
    let wanted = "
        DynamicUser=yes NoNewPrivileges=yes CapabilityBoundingSet= AmbientCapabilities= LimitCORE=0 UMask=0077
        ProtectSystem=strict ProtectHome=yes ProtectProc=invisible ProtectClock=yes ProtectControlGroups=yes
        ProtectHostname=yes ProtectKernelLogs=yes ProtectKernelModules=yes ProtectKernelTunables=yes
        PrivateTmp=yes PrivateDevices=yes PrivateMounts=yes PrivateUsers=yes DevicePolicy=closed
        KeyringMode=private LockPersonality=yes MemoryDenyWriteExecute=yes RemoveIPC=yes RestrictNamespaces=yes
        RestrictRealtime=yes RestrictSUIDSGID=yes SystemCallArchitectures=native
        SystemCallFilter=@system-service";
    for directive in wanted.split_whitespace() {
        assert!(unit.lines().any(|line| line == directive), "{directive} is not in the unit");
    }
    let network = "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX";
    let calls = "SystemCallFilter=~@privileged @resources";
    assert!([network, calls].iter().all(|line| unit.lines().any(|found| found == *line)));

    // systemd's own opinion: 0 is a process that may do nothing, 10 one that may do all.
    let mut judge = Command::new("systemd-analyze");
    judge.args(["security", "--offline=true", "--threshold=12", "config/pillion.service"]);
    match judge.current_dir(root()).output() {
        Ok(judged) => {
            let said = String::from_utf8_lossy(&judged.stdout);
            assert!(judged.status.success(), "1.2 at most: {said}");
        }
        Err(error) => eprintln!("not judged by systemd-analyze: {error}"),
    }
}

#[test]
fn the_image_runs_as_a_user_without_rights() {
    let lines = |path: &str| {
        let text = fs::read_to_string(root().join(path)).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let image = lines("docker/Dockerfile");
    for line in ["FROM scratch", "USER 65532:65532"] {
        assert!(image.iter().any(|found| found == line), "{line}");
    }
    let compose = lines("docker/compose.yaml");
    for line in ["read_only: true", "cap_drop: [ALL]", "security_opt: [\"no-new-privileges:true\"]"]
    {
        assert!(compose.iter().any(|found| found == line), "{line}");
    }
}

#[test]
fn a_panic_unwinds_in_every_build_and_is_rehearsed_in_none_that_is_installed() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let profiles = manifest["profile"].as_table().unwrap();
    assert!(profiles.contains_key("release"));
    for (name, profile) in profiles {
        assert_eq!(profile.get("panic"), None, "{name}: a call's panic would end the process");
        let rehearses = profile.get("debug-assertions");
        assert_eq!(rehearses, None, "{name}: see src/panics/rehearsal.rs");
    }
    let release = fs::read_to_string(root().join("tools/release")).unwrap();
    assert!(!release.contains("panic=abort") && !release.contains("debug-assertions"));
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
