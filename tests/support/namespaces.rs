//! Two network namespaces with a wire between them, so that ports and TIME_WAIT are as they are
//! between two hosts.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A pair of namespaces, removed with the value.
#[derive(Debug)]
pub(crate) struct Namespaces {
    near: String,
    far: String,
}

impl Namespaces {
    /// Address of the far side, as the near side sees it.
    pub(crate) const FAR: &str = "10.137.0.2";

    /// Makes them.
    ///
    /// # Errors
    /// Why they are not allowed here, for a test that is skipped then.
    pub(crate) fn new() -> Result<Self, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let pair = Self { near: format!("pillion-{id}-near"), far: format!("pillion-{id}-far") };
        let Self { near, far } = &pair;
        for command in [
            format!("netns add {near}"),
            format!("netns add {far}"),
            format!("-n {near} link add eth0 type veth peer name eth0 netns {far}"),
            format!("-n {near} address add 10.137.0.1/24 dev eth0"),
            format!("-n {far} address add {}/24 dev eth0", Self::FAR),
            format!("-n {near} link set eth0 up"),
            format!("-n {far} link set eth0 up"),
            format!("-n {near} link set lo up"),
            format!("-n {far} link set lo up"),
        ] {
            ip(&command)?;
        }
        Ok(pair)
    }

    /// What a command line is put behind to run on the near side.
    pub(crate) fn near(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.near]
    }

    /// The same for the far side.
    pub(crate) fn far(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.far]
    }

    /// Connections from the near side to the far one that are in TIME_WAIT.
    pub(crate) fn time_wait(&self) -> usize {
        // As /proc writes the state, and 10.137.0.2.
        const TIME_WAIT: &str = " 06 ";
        const TO_FAR: &str = " 0200890A:";
        let [program, arguments @ ..] = self.near();
        let table = Command::new(program).args(arguments).args(["cat", "/proc/net/tcp"]).output();
        let table = String::from_utf8(table.unwrap().stdout).unwrap();
        table.lines().filter(|line| line.contains(TO_FAR) && line.contains(TIME_WAIT)).count()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
