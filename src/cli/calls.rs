//! `pillion calls`: the calls of late that failed or were slow, as a running proxy remembers them.

use clap::Args;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    admin_client::{AdminFlags, ESCAPED},
    columns::columns,
    failure::Failure,
    output::counted,
};
use crate::recent::Filter;
use crate::telemetry::plain;

/// Show the calls of late that failed or were slow, and what was decided for each
///
/// A call is slow when its answer takes longer to begin than `slow_call` of its service. The proxy
/// keeps the last ones; of many that end alike it keeps some.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Calls {
    /// Only calls of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// Only calls that ended with this status: a gRPC name or number, or an HTTP status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Only calls that the proxy ended for this reason, such as connect_failed; or cancelled ones
    #[arg(long, value_name = "REASON")]
    error: Option<String>,

    /// Only calls whose path begins like this
    #[arg(long, value_name = "/PKG.SERVICE/METHOD")]
    path: Option<String>,

    /// Only calls whose answer took as long to begin
    #[arg(long, value_name = "DURATION")]
    slower: Option<String>,

    /// The last so many [default: 100; none with --follow]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    limit: Option<String>,

    /// Go on with calls as they end
    #[arg(short, long)]
    follow: bool,

    /// Show the whole decision of each
    #[arg(short, long)]
    long: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

const EXAMPLES: &str = "\
Examples:
  pillion calls
  pillion calls --service orders --error connect_failed --long
  pillion calls --slower 250ms --follow
  pillion calls -o json | jq '.calls[].spent'";

/// `GET /calls`.
#[derive(Debug, Deserialize)]
struct Answer {
    calls: Vec<Call>,
    matching: usize,
    left_out: u64,
}

/// A line of `GET /calls?follow`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Missed { missed: u64 },
    Call(Box<Call>),
}

#[derive(Debug, Deserialize)]
struct Call {
    time: String,
    service: String,
    authority: String,
    path: String,
    status: String,
    error: String,
    message: String,
    duration_ms: f64,
    waited_ms: f64,
    route: Option<String>,
    node: Option<String>,
    filter: Option<String>,
    filter_of: Option<String>,
    rule: Option<String>,
    hash_key: Option<String>,
    #[serde(default)]
    stages: Vec<Stage>,
    dropped: Option<String>,
    balance: Option<String>,
    not_retried: Option<String>,
    deadline_ms: Option<f64>,
    spent: Spent,
    #[serde(default)]
    left_out: u64,
}

#[derive(Debug, Deserialize)]
struct Stage {
    stage: String,
    kept: usize,
}

/// Where the time went: parts by name, and attempts.
#[derive(Debug, Deserialize)]
struct Spent {
    #[serde(default)]
    attempts_before: u64,
    attempts: Vec<Attempt>,
    #[serde(flatten)]
    parts: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    endpoint: String,
    outcome: Option<String>,
    grpc_status: Option<String>,
    #[serde(flatten)]
    parts: Map<String, Value>,
}

impl Calls {
    pub(super) fn run(self) -> Result<(), Failure> {
        let question = self.question()?;
        let long = self.long;
        match self.follow {
            true => self.admin.follow(&question, |line| told(&line, long)),
            false => self.admin.ask(&question, |answer| list(answer, long)),
        }
    }

    fn question(&self) -> Result<String, Failure> {
        let given = [&self.service, &self.status, &self.error, &self.path, &self.slower];
        let given = Filter::NAMES.iter().zip(given);
        let (mut question, mut filter) = ("/calls?".to_owned(), Filter::default());
        let mut ask = |name: &str, value: &str| {
            question.push_str(&format!("{name}={}&", utf8_percent_encode(value, ESCAPED)));
        };
        let wrong = |error: crate::recent::FilterError| Failure::Usage(error.to_string());
        for (name, value) in given.filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            filter = filter.and(name, value).map_err(wrong)?;
            ask(name, value);
        }
        if let Some(limit) = &self.limit {
            Filter::limit(limit).map_err(wrong)?;
            ask("limit", limit);
        }
        if self.follow {
            question.push_str("follow&");
        }
        Ok(question.trim_end_matches(['?', '&']).to_owned())
    }
}

fn list(answer: &Answer, long: bool) -> String {
    let Answer { calls, matching, left_out } = answer;
    let mut text = match (calls.is_empty(), long) {
        (true, _) => "No such call is remembered.\n".to_owned(),
        (_, true) => calls.iter().map(whole).collect::<Vec<_>>().join("\n"),
        (_, false) => columns(
            ["TIME", "SERVICE", "PATH", "STATUS", "ERROR", "WAITED-MS", "MS", "TRIED", "ENDPOINT"],
            &calls.iter().map(row).collect::<Vec<_>>(),
        ),
    };
    let before = matching - calls.len();
    let mut notes = Vec::new();
    if before > 0 {
        notes.push(format!("{} before these: see --limit", counted(before, "call")));
    }
    if *left_out > 0 {
        notes.push(format!("{left_out} more failed or slow calls were not recorded"));
    }
    for note in notes {
        text.push_str(&format!("\n{note}\n"));
    }
    text
}

fn told(line: &Line, long: bool) -> String {
    match line {
        Line::Missed { missed } => format!("... {missed} calls came too fast to be shown\n"),
        Line::Call(call) if long => whole(call) + "\n",
        Line::Call(call) => {
            let row = row(call);
            let cells = row.iter().filter(|cell| !cell.is_empty());
            cells.cloned().collect::<Vec<_>>().join("  ") + "\n"
        }
    }
}

fn row(call: &Call) -> [String; 9] {
    let tried = call.spent.attempts_before as usize + call.spent.attempts.len();
    let last = call.spent.attempts.last();
    [
        call.time.clone(),
        call.service.clone(),
        call.path.clone(),
        call.status.clone(),
        call.error.clone(),
        call.waited_ms.to_string(),
        call.duration_ms.to_string(),
        tried.to_string(),
        last.map(|attempt| attempt.endpoint.clone()).unwrap_or_default(),
    ]
}

/// All that is known of a call, one thing a line.
fn whole(call: &Call) -> String {
    let Call { time, service, path, status, error, duration_ms, .. } = call;
    let head = [time, service, path, status, error].map(|text| plain(text));
    let head: Vec<_> = head.into_iter().filter(|text| !text.is_empty()).collect();
    let mut text = format!("{}  {duration_ms} ms\n", head.join("  "));
    let mut tell = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<11}{}\n", plain(value)));
        }
    };
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    tell("message", &call.message);
    tell("authority", &call.authority);
    tell("route", &some(&call.route));
    tell("node", &some(&call.node));
    if let (Some(filter), Some(of)) = (&call.filter, &call.filter_of) {
        tell("filter", &format!("{filter}  (of the {of})"));
    }
    tell("rule", &some(&call.rule));
    tell("hash key", &some(&call.hash_key));
    let stages = call.stages.iter().map(|Stage { stage, kept }| format!("{stage} {kept}"));
    tell("stages", &stages.collect::<Vec<_>>().join(" > "));
    tell("dropped", &some(&call.dropped));
    tell("balance", &some(&call.balance));
    tell("no retry", &some(&call.not_retried));
    tell("deadline", &call.deadline_ms.map(|ms| format!("{ms} ms")).unwrap_or_default());
    tell("before", &parts(&call.spent.parts));
    let all = call.spent.attempts_before + call.spent.attempts.len() as u64;
    for (at, attempt) in (call.spent.attempts_before + 1..).zip(&call.spent.attempts) {
        let Attempt { endpoint, outcome, grpc_status, parts } = attempt;
        // What the last one was answered with is what the caller got, unless the proxy ended the call.
        let of_call = (at == all && call.error.is_empty()).then_some(&*call.status);
        let status = grpc_status.as_deref().or(of_call);
        let ended = [outcome.as_deref(), status].into_iter().flatten().collect::<Vec<_>>();
        let line = format!("{endpoint}  {}  {}", ended.join(" "), self::parts(parts));
        tell(&format!("attempt {at}"), line.trim_end());
    }
    if call.left_out > 0 {
        tell("left out", &format!("{} calls like this one, before it", call.left_out));
    }
    text
}

/// `connect 0.3 ms, first byte 2.1 ms`, in the order in which they come; those that a newer proxy may
/// tell of last.
fn parts(parts: &Map<String, Value>) -> String {
    const ORDER: [&str; 6] = ["resolve", "fault", "pause", "connect", "first_byte", "body"];
    let part = |(name, value): (&String, &Value)| {
        let name = name.strip_suffix("_ms")?;
        let place = ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
        Some((place, format!("{} {value} ms", name.replace('_', " "))))
    };
    let mut parts: Vec<_> = parts.iter().filter_map(part).collect();
    parts.sort_by_key(|(place, _)| *place);
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(", ")
}
