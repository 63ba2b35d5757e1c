//! A command that goes on until it is ended, and the lines that it prints meanwhile.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::mpsc, time::timeout};

use crate::bare_command;

/// Long enough for a busy machine; nothing waits for it unless it fails.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Ended with the value.
pub(crate) struct Running {
    child: Child,
    stdout: mpsc::UnboundedReceiver<String>,
    stderr: mpsc::UnboundedReceiver<String>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = bare_command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, stdout: lines(stdout), stderr: lines(stderr) }
    }

    /// The next line on stdout.
    pub(crate) async fn line(&mut self) -> String {
        next(&mut self.stdout, "a line on stdout").await
    }

    /// The next line on stdout that has `text` in it; those before it are passed over.
    pub(crate) async fn line_with(&mut self, text: &str) -> String {
        next_with(&mut self.stdout, text).await
    }

    /// The next line on stderr that has `text` in it; those before it are passed over.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        next_with(&mut self.stderr, text).await
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as Ctrl-C does, and gives its exit status.
    pub(crate) async fn interrupt(mut self) -> i32 {
        self.signal(Signal::INT);
        self.ended().await
    }

    /// Waits for its end and gives its exit status.
    async fn ended(&mut self) -> i32 {
        // Its end closes what it prints to.
        while let Ok(Some(_)) = timeout(SOON, self.stdout.recv()).await {}
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "{what} within {SOON:?}");
}

fn lines(from: impl Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

async fn next(lines: &mut mpsc::UnboundedReceiver<String>, what: &str) -> String {
    let line = timeout(SOON, lines.recv()).await;
    line.unwrap_or_else(|_| panic!("{what} within {SOON:?}")).unwrap_or_else(|| panic!("{what}"))
}

async fn next_with(lines: &mut mpsc::UnboundedReceiver<String>, text: &str) -> String {
    let mut passed = Vec::new();
    loop {
        match timeout(SOON, lines.recv()).await {
            Ok(Some(line)) if line.contains(text) => return line,
            Ok(Some(line)) => passed.push(line),
            Ok(None) => panic!("it ended without a line with {text:?}, after {passed:#?}"),
            Err(_) => panic!("no line with {text:?} within {SOON:?}, after {passed:#?}"),
        }
    }
}
