//! `pillion registry copy`: the records of one layout, written in another.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io::{IsTerminal, stderr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::{
    Place, asked_to_end, connection::ConnectionFlags, duration, put::written_formats, view::now,
};
use crate::cli::{
    columns::columns,
    failure::{Failure, print_on},
    output::{Output, counted, json},
};
use crate::config::{EtcdSource, EtcdUrl};
use crate::mirror::{self, Copy as Mirrored, Event, Job, LeftOut, Mode, Names, Outcome};
use crate::model::ServiceName;
use crate::telemetry::{plain, plain_lines};

/// Copy the records of one format into another, once or all the time
///
/// So clients of one framework can call services that register with another, without a proxy beside
/// them. Copies live under a lease of their own and go with it. Keys of others are neither written
/// over nor deleted, and a copy is never copied again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Copy {
    /// Where the originals are; what it does not say is as --etcd, --prefix, ... have it
    #[arg(long, value_name = "SOURCE|KEY=VALUE,...", default_value = "")]
    from: String,

    /// Where the copies go, in the same way; needs a format that is written
    #[arg(long, value_name = "SOURCE|KEY=VALUE,...")]
    to: String,

    /// Only this service, under another name if one is given; repeat for several
    #[arg(long, value_name = "NAME[:NAME]", value_parser = renamed)]
    service: Vec<(ServiceName, ServiceName)>,

    /// Go on until Ctrl-C: copy what changes, delete copies whose original went
    #[arg(long)]
    follow: bool,

    /// Time of the lease that the copies are under; with --follow 15s without it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,

    /// Write keys without a lease, which stay until somebody deletes them
    #[arg(long, conflicts_with_all = ["follow", "ttl"])]
    permanent: bool,

    /// Show what would be copied, and write nothing
    #[arg(long, conflicts_with = "follow")]
    dry_run: bool,

    /// How to print what is done; with --follow, JSON is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry copy --etcd http://10.0.0.1:2379 --dry-run \\
      --from prefix=/microservices,format=kratos --to prefix=/zero,format=go-zero
  pillion registry copy --from prefix=/microservices --to prefix=/zero,format=go-zero --follow
  pillion registry copy --from etcd=http://a:2379 --to etcd=http://b:2379,format=etcd-naming \\
      --service orders --service pay:payments --ttl 1h
  pillion registry copy -c pillion.toml --from main --to other --follow

--from and --to take the name of a source of -c FILE, and KEY=VALUE of source, etcd (several, one a
member), prefix, format, username, password_file, ca_file, cert_file and key_file.";

/// Time of a lease that is kept alive.
const TTL: Duration = Duration::from_secs(15);

impl Copy {
    pub(super) async fn run(self, connection: &ConnectionFlags) -> Result<(), Failure> {
        let from = place(connection, "--from", &self.from)?;
        let to = place(connection, "--to", &self.to)?;
        let job = self.job(from, to)?;
        if self.follow {
            return self.follow(job).await;
        }
        let mode = match (self.dry_run, self.ttl, self.permanent) {
            (true, ..) => Mode::DryRun,
            (false, Some(ttl), _) => Mode::Leased(ttl),
            (false, None, true) => Mode::Permanent,
            (false, None, false) => {
                return Err(Failure::Usage(
                    "how long shall the copies stay? give --follow (as long as this command runs), \
                     --ttl DURATION or --permanent; --dry-run shows what would be copied"
                        .to_owned(),
                ));
            }
        };
        let outcome = mirror::once(job, mode).await.map_err(Failure::failed)?;
        self.report(&outcome, mode)?;
        match outcome.failed.first() {
            None => Ok(()),
            Some(_) => Err(Failure::failed(std::io::Error::other(format!(
                "{} of {} copies could not be written",
                outcome.failed.len(),
                outcome.failed.len() + outcome.copies.len()
            )))),
        }
    }

    fn job(&self, from: Place, to: Place) -> Result<Job, Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        if !written_formats().contains(&&*to.source.format) {
            let formats = written_formats().join(", ");
            let format = &to.source.format;
            return usage(format!("--to has format {format}; it must be one of {formats}"));
        }
        let same = from.source.endpoints == to.source.endpoints
            && from.layout.root() == to.layout.root()
            && from.source.format == to.source.format;
        if same {
            return usage("--from and --to are the same place".to_owned());
        }
        let mut names = HashSet::new();
        if let Some((_, name)) = self.service.iter().find(|(_, name)| !names.insert(name)) {
            return usage(format!("two services would be copied to {name}"));
        }
        Ok(Job {
            from: (from.source, from.layout),
            to: (to.source, to.layout),
            names: Names::new(self.service.clone()),
        })
    }

    fn report(&self, outcome: &Outcome, mode: Mode) -> Result<(), Failure> {
        let report = Report {
            written: mode != Mode::DryRun,
            lease: outcome.lease.map(|lease| lease.id.to_string()),
            copies: outcome.copies.iter().map(CopyView::from).collect(),
            left_out: outcome.left_out.iter().map(LeftOutView::from).collect(),
            failed: outcome
                .failed
                .iter()
                .map(|(copy, error)| FailedView { key: copy.key.clone(), error: error.to_string() })
                .collect(),
        };
        let lease = match (mode, outcome.lease) {
            (Mode::DryRun, _) => "nothing is written: --dry-run".to_owned(),
            (_, Some(lease)) => {
                let ttl = humantime::format_duration(lease.ttl);
                format!("under lease {} of {ttl}, and gone with it", lease.id)
            }
            (_, None) => "without a lease: the copies stay until somebody deletes them".to_owned(),
        };
        self.output.print(&report, |report| table(report, &lease))
    }

    async fn follow(&self, job: Job) -> Result<(), Failure> {
        let ended = asked_to_end()?;
        let teller = Teller { output: self.output, told: HashMap::new(), shown: false };
        let teller = RefCell::new(teller);
        // Nobody reads any more: as good as Ctrl-C.
        let unread = tokio::sync::Notify::new();
        let ended = async {
            tokio::select! {
                () = ended => {}
                () = unread.notified() => {}
            }
        };
        let tell = |event| {
            if !teller.borrow_mut().tell(&event).unwrap_or(false) {
                unread.notify_one();
            }
        };
        let gone = mirror::follow(job, self.ttl.unwrap_or(TTL), ended, tell).await;
        let end = if gone { "are gone" } else { "go when their lease runs out" };
        teller.borrow_mut().say(&format!("ended: the copies {end}"));
        Ok(())
    }
}

/// One side: what is written in `text`, over the shared flags or over the source that it names.
fn place(connection: &ConnectionFlags, flag: &str, text: &str) -> Result<Place, Failure> {
    let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let pairs = items.iter().map(|item| item.split_once('=').unwrap_or(("source", item)));
    let named = pairs.clone().find(|(key, _)| *key == "source").map(|(_, name)| name);
    let mut source = match named {
        Some(name) => connection.base(Some(name))?,
        None => connection.place()?.source,
    };
    let mut members = Vec::new();
    for (key, value) in pairs {
        set(&mut source, &mut members, key, value)
            .map_err(|problem| Failure::Usage(format!("{flag}: {problem}")))?;
    }
    if !members.is_empty() {
        source.endpoints = members;
    }
    Place::new(source)
}

fn set(
    source: &mut EtcdSource,
    members: &mut Vec<String>,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let path = || Some(PathBuf::from(value));
    match key {
        "source" => {}
        "etcd" => {
            let url: EtcdUrl = value.parse().map_err(|wrong| format!("{wrong}"))?;
            members.push(url.as_str().to_owned());
        }
        "prefix" => value.clone_into(&mut source.prefix),
        "format" => value.clone_into(&mut source.format),
        "username" => value.clone_into(&mut source.username),
        "password_file" => source.password_file = path(),
        "ca_file" => source.ca_file = path(),
        "cert_file" => source.cert_file = path(),
        "key_file" => source.key_file = path(),
        _ => {
            return Err(format!(
                "{key:?} is unknown; allowed: source, etcd, prefix, format, username, \
                 password_file, ca_file, cert_file, key_file"
            ));
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Report {
    written: bool,
    lease: Option<String>,
    copies: Vec<CopyView>,
    left_out: Vec<LeftOutView>,
    failed: Vec<FailedView>,
}

#[derive(Debug, Serialize)]
struct CopyView {
    service: String,
    address: String,
    from: String,
    key: String,
    value: String,
    lost: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LeftOutView {
    service: String,
    address: Option<String>,
    from: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct FailedView {
    key: String,
    error: String,
}

impl From<&Mirrored> for CopyView {
    fn from(copy: &Mirrored) -> Self {
        Self {
            service: copy.service.to_string(),
            address: copy.address.to_string(),
            from: copy.from.to_string(),
            key: copy.key.clone(),
            value: copy.value.clone(),
            lost: copy.lost.clone(),
        }
    }
}

impl From<&LeftOut> for LeftOutView {
    fn from(left: &LeftOut) -> Self {
        Self {
            service: left.service.to_string(),
            address: left.address.as_ref().map(ToString::to_string),
            from: left.key.to_string(),
            reason: left.why.to_string(),
        }
    }
}

impl CopyView {
    fn note(&self) -> String {
        match &self.lost[..] {
            [] => String::new(),
            lost => format!("without {}", lost.join(", ")),
        }
    }
}

fn table(report: &Report, lease: &str) -> String {
    let Report { copies, left_out, failed, .. } = report;
    let mut text = match copies.is_empty() {
        true => "nothing to copy\n".to_owned(),
        false => {
            let row = |copy: &CopyView| {
                let CopyView { service, address, from, key, .. } = copy;
                [service, address, from, key, &copy.note()].map(Clone::clone)
            };
            let rows: Vec<_> = copies.iter().map(row).collect();
            columns(["SERVICE", "ADDRESS", "FROM", "TO", "NOTE"], &rows)
        }
    };
    if !left_out.is_empty() {
        let row = |left: &LeftOutView| {
            let LeftOutView { service, address, from, reason } = left;
            [service.clone(), address.clone().unwrap_or_default(), from.clone(), reason.clone()]
        };
        let rows: Vec<_> = left_out.iter().map(row).collect();
        text.push('\n');
        text.push_str(&columns(["LEFT OUT", "ADDRESS", "KEY", "BECAUSE"], &rows));
    }
    if !failed.is_empty() {
        let rows: Vec<_> = failed.iter().map(|f| [f.key.clone(), f.error.clone()]).collect();
        text.push('\n');
        text.push_str(&columns(["FAILED", "BECAUSE"], &rows));
    }
    text.push_str(&format!("\n{lease}\n"));
    text
}

/// One line of JSON of a mirror that goes on.
#[derive(Debug, Serialize)]
struct Line<'a, T> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    what: T,
}

/// Prints what a mirror does: what it writes to stdout, how it is doing to stderr.
struct Teller {
    output: Output,
    /// What failed last, by key: once is enough, however long it lasts.
    told: HashMap<String, String>,
    /// Whether the last line on the terminal is the status.
    shown: bool,
}

impl Teller {
    /// Says whether anybody reads on.
    fn tell(&mut self, event: &Event) -> Result<bool, Failure> {
        match event {
            Event::Put(copy) => {
                let copy = CopyView::from(copy);
                self.told.remove(&copy.key);
                let text =
                    format!("+ {} {} {} {}", copy.service, copy.address, copy.key, copy.note());
                self.line("put", &copy, text)
            }
            Event::Deleted(service, key) => {
                #[derive(Serialize)]
                struct Deleted {
                    service: String,
                    key: String,
                }
                self.told.remove(&**key);
                let deleted = Deleted { service: service.to_string(), key: key.to_string() };
                self.line("deleted", &deleted, format!("- {service} {key}"))
            }
            Event::LeftOut(left) => {
                let left = LeftOutView::from(left);
                let text = format!("! {} {} left out: {}", left.service, left.from, left.reason);
                self.line("left_out", &left, text)
            }
            Event::Failed(key, error) => {
                let error = error.to_string();
                if self.told.insert(key.clone(), error.clone()).as_ref() == Some(&error) {
                    return Ok(true);
                }
                let text = format!("! {key} failed, and is tried again: {error}");
                self.line("failed", &FailedView { key: key.clone(), error }, text)
            }
            Event::Read(keys, revision) => {
                self.say(&format!("{} read at revision {revision}", counted(*keys, "key")));
                Ok(true)
            }
            Event::Trouble(error) => {
                self.say(&format!("trying on, copies stay meanwhile: {error}"));
                Ok(true)
            }
            Event::Leased(lease) => {
                let ttl = humantime::format_duration(lease.ttl);
                self.say(&format!("copies are under lease {} of {ttl}", lease.id));
                Ok(true)
            }
            Event::Settled(copies, left_out) => {
                let (copies, left) = (counted(*copies, "copy"), counted(*left_out, "record"));
                let text = format!("{copies}, {left} left out");
                match stderr().is_terminal() {
                    true => {
                        self.status(&text);
                        self.shown = true;
                    }
                    false => self.say(&text),
                }
                Ok(true)
            }
        }
    }

    fn line<T: Serialize>(&mut self, event: &str, what: &T, text: String) -> Result<bool, Failure> {
        self.clear();
        print_on(match self.output {
            Output::Table => format!("{}  {}\n", now(), plain(text.trim_end())),
            Output::Json => json(&Line { time: now(), event, what })? + "\n",
        })
    }

    fn say(&mut self, text: &str) {
        self.status(&format!("{text}\n"));
    }

    fn status(&mut self, text: &str) {
        self.clear();
        eprint!("{}  {}", now(), plain_lines(text));
    }

    /// Takes the status off the terminal.
    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

fn renamed(text: &str) -> Result<(ServiceName, ServiceName), String> {
    let (here, there) = text.split_once(':').unwrap_or((text, text));
    let name = |text: &str| text.parse().map_err(|wrong| format!("{text:?}: {wrong}"));
    Ok((name(here)?, name(there)?))
}
