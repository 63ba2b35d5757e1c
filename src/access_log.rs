//! One line a call on stdout.
//!
//! Workers format a line and hand it to a thread that writes: a terminal or pipe that does not take
//! more loses lines, and never holds a call up.

use std::{
    io::Write,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::SystemTime,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    call::{CallMeta, Outcome, Spent, millis},
    config::AccessLog as Form,
    panics::{Task, caught},
};

/// Lines that may wait to be written.
const WAITING: usize = 4096;

/// Where workers put their lines. Cloning shares the writer.
///
/// The writer starts with the first line.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Arc<OnceLock<SyncSender<String>>>);

impl AccessLog {
    /// Writes the line of a call that is over at `now`, if lines are wanted.
    pub fn write(&self, form: Form, call: &CallMeta, outcome: Outcome, now: Instant) {
        if form == Form::Off {
            return;
        }
        let line = Line::new(call, outcome, now);
        let text = if form == Form::Json { line.json() } else { line.text() };
        // A full queue means that nobody reads: the line is lost, the call is not.
        let _ = self.0.get_or_init(start).try_send(text);
    }
}

fn start() -> SyncSender<String> {
    let (lines, waiting) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    // Without the thread the receiver is gone and lines are dropped.
    drop(thread.spawn(move || while caught(Task::Other, || write_all(&waiting)).is_err() {}));
    lines
}

fn write_all(lines: &Receiver<String>) {
    let mut stdout = std::io::BufWriter::new(std::io::stdout());
    while let Ok(mut line) = lines.recv() {
        loop {
            line.push('\n');
            if stdout.write_all(line.as_bytes()).is_err() {
                return;
            }
            match lines.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        if stdout.flush().is_err() {
            return;
        }
    }
}

/// What a line says.
struct Line {
    fields: Vec<(&'static str, Value)>,
    spent: Spent,
}

impl Line {
    fn new(call: &CallMeta, outcome: Outcome, now: Instant) -> Self {
        let target = call.target.get();
        let current = (call.attempts() > 0).then(|| call.endpoint());
        let (status, error) = outcome.told(call.kind);
        let spent = Spent::new(call, now, Some(outcome.of_attempt()));
        let peer = call.identity.as_ref().map(|names| ("peer", (&**names).into()));
        let mut fields = vec![
            ("time", humantime::format_rfc3339_millis(SystemTime::now()).to_string().into()),
            ("service", target.map_or("", |target| target.view.name().as_str()).into()),
            ("path", call.uri.path().into()),
            ("endpoint", current.as_ref().map_or("", |e| e.record.address.as_str()).into()),
            ("attempts", call.attempts().into()),
            ("status", (&*status).into()),
            ("error", error.into()),
            ("duration_ms", millis(spent.total).into()),
        ];
        fields.extend(peer);
        Self { fields, spent }
    }

    fn json(self) -> String {
        let spent = ("spent", self.spent.to_json(usize::MAX));
        let fields = self.fields.into_iter().chain([spent]);
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        Value::Object(fields.collect()).to_string()
    }

    fn text(self) -> String {
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
        };
        let spent = ("spent", self.spent.to_string().into());
        let field = |(name, value): (&str, Value)| match value.as_str() {
            Some(text) if plain(text) => format!("{name}={text}"),
            _ => format!("{name}={value}"),
        };
        self.fields.into_iter().chain([spent]).map(field).collect::<Vec<_>>().join(" ")
    }
}
