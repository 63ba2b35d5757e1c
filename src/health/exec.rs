//! Whether a command exits with 0.

use std::{io, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, Command},
};

use super::Unwell;

/// How much is kept of what the command says on stderr.
const KEPT: usize = 200;

/// Runs `command` in a process group of its own, which is killed when this future is dropped before
/// the command has ended.
pub(super) async fn run(command: &str) -> Result<(), Unwell> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Unwell::Command)?;
    // Dropped before `child`, so that the group's number is still its own.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let status = loop {
        tokio::select! {
            biased;
            // What it leaves running may keep stderr open: only the command itself is waited for.
            open = more(&mut stderr, &mut said) => if !open { stderr = None },
            status = child.wait() => break status.map_err(Unwell::Command)?,
        }
    };
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.lines().next().map(str::trim).filter(|line| !line.is_empty());
    let said = said.map(|line| format!(": {line}")).unwrap_or_default();
    Err(Unwell::Says(format!("the command ended with {status}{said}")))
}

/// Reads on, keeping the beginning; false at the end.
async fn more(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let Some(stderr) = stderr else { return std::future::pending().await };
    let mut piece = [0; 1024];
    let read: io::Result<usize> = stderr.read(&mut piece).await;
    let read = read.unwrap_or(0);
    let room = KEPT.saturating_sub(said.len());
    said.extend_from_slice(&piece[..read.min(room)]);
    read > 0
}

/// A process group that ends with this value.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself a moment ago.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
