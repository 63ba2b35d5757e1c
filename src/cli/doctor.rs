//! `pillion doctor`: where a call would break, seen from this host.

use std::{fmt::Write, io, path::PathBuf};

use clap::{Args, builder::PossibleValuesParser};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{
    admin_client::{AdminClient, AdminError, AdminUrl},
    admin_proof::AdminProof,
    columns::columns,
    failure::Failure,
    output::Output,
};
use crate::config::{self, EtcdUrl, FORMATS, Overrides, Settings};
use crate::doctor::{Outcome, Question, Seen, Step, Walk, compare, walk};
use crate::model::Selectors;

/// Walk the way of a call to AUTHORITY from this host, and say where it breaks
///
/// Decides, lists, picks and connects as a proxy with this configuration does, without needing one and
/// without making a call: each step with the time that it took and, where it went wrong, with what to
/// do. A proxy that runs here is asked what it knows, and that is compared.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// What the call has in `:authority`, such as orders or orders.internal:8443
    authority: String,

    /// Configuration file (TOML) of the proxy; without one, every key has its default
    #[arg(short, long, value_name = "FILE", env = "PILLION_CONFIG")]
    config: Option<PathBuf>,

    /// A header of the call; repeat for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// The path of the call, which routes may look at
    #[arg(long, value_name = "/PKG.SERVICE/METHOD", default_value = "/")]
    path: String,

    /// Client URLs of the etcd members, instead of what the file says
    #[arg(long, value_name = "URL[,URL]", env = "PILLION_ETCD", value_delimiter = ',')]
    etcd: Vec<EtcdUrl>,

    /// Start of the registry's keys, instead of what the file says
    #[arg(long, value_name = "PREFIX", env = "PILLION_PREFIX")]
    prefix: Option<String>,

    /// How the records are written, instead of what the file says
    #[arg(long, env = "PILLION_FORMAT", value_parser = PossibleValuesParser::new(FORMATS))]
    format: Option<String>,

    /// Admin address of the proxy to compare with; that of the configuration without it
    #[arg(long, value_name = "URL", env = "PILLION_ADMIN")]
    admin: Option<AdminUrl>,

    #[command(flatten)]
    proof: AdminProof,

    /// How to print the steps
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  pillion doctor orders --etcd http://10.0.0.1:2379
  pillion doctor orders.internal:8443 -c /etc/pillion/pillion.toml --path /orders.v1.Orders/List
  pillion doctor orders -H 'pillion-filter: version=v2;'
  pillion doctor orders -o json | jq '.steps[] | select(.outcome != \"ok\")'

Exits with 1 when a step has failed. A warning is something that calls get through.";

#[derive(Debug, Serialize)]
struct Report {
    authority: String,
    steps: Vec<Step>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let question = self.question()?;
        let overrides = Overrides {
            etcd: self.etcd.clone(),
            prefix: self.prefix.clone(),
            format: self.format.clone(),
            ..Overrides::default()
        };
        let settings = config::load(self.config.as_deref(), &overrides)?.settings;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let steps = runtime.map_err(Failure::failed)?.block_on(async {
            let mut walked = walk(&settings, &question).await;
            walked.steps.extend(self.proxy(&settings, &walked).await);
            walked.steps
        });
        let failed = steps.iter().filter(|step| step.outcome == Outcome::Failed).count();
        let report = Report { authority: self.authority, steps };
        self.output.print(&report, table)?;
        match failed {
            0 => Ok(()),
            1 => Err(broken("1 step has failed")),
            _ => Err(broken(&format!("{failed} steps have failed"))),
        }
    }

    fn question(&self) -> Result<Question, Failure> {
        let mut question = Question {
            authority: self.authority.clone(),
            path: self.path.clone(),
            service: None,
            node: None,
            filter: None,
            headers: HeaderMap::new(),
        };
        for (name, value) in &self.headers {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            match name.as_str() {
                "pillion-service" => question.service = Some(text),
                "pillion-node" => question.node = Some(text),
                "pillion-filter" => {
                    let filter: Result<Selectors, _> = text.parse();
                    let filter = filter.map_err(|wrong| Failure::Usage(wrong.to_string()))?;
                    question.filter = Some(filter);
                }
                _ => drop(question.headers.append(name, value.clone())),
            }
        }
        Ok(question)
    }

    /// What the running proxy knows, if there is one and it can be compared.
    async fn proxy(&self, settings: &Settings, walked: &Walk) -> Option<Step> {
        let service = walked.service.as_ref()?;
        // What the file says is an address; only one that is given may be wrong.
        let scheme = if settings.admin.tls.is_some() { "https://" } else { "" };
        let configured = || format!("{scheme}{}", settings.admin.address).parse().ok();
        let admin = self.admin.clone().or_else(configured)?;
        let url = admin.to_string();
        let step = |detail: String| Step::ok("proxy", &*url, detail);
        let client = match AdminClient::new(admin, &self.proof.or_token_of(&settings.admin)) {
            Ok(client) => client,
            Err(wrong) => {
                let advice = "name files that can be used with --admin-token-file, --admin-ca-file, \
                              --admin-cert-file and --admin-key-file";
                return Some(step(wrong.to_string()).but(Outcome::Failed, advice));
            }
        };
        Some(match client.get(&format!("/services/{service}")).await {
            Ok(answer) => match serde_json::from_slice::<Seen>(&answer) {
                Ok(seen) => compare(&url, walked.snapshot.as_deref(), &seen),
                Err(error) => step(format!("its answer is not understood: {error}"))
                    .but(Outcome::Failed, "is that a proxy of the same version?"),
            },
            Err(AdminError::Absent { .. }) if self.admin.is_none() => {
                let detail = "no proxy runs here to compare with".to_owned();
                Step { outcome: Outcome::Skipped, ..step(detail) }
            }
            Err(AdminError::Refused { text, .. }) if walked.snapshot.is_none() => {
                step(format!("it says the same: {text}"))
            }
            Err(error) => step(error.to_string()).but(
                Outcome::Failed,
                "is `pillion run` running with this configuration, and is that its admin address?",
            ),
        })
    }
}

fn broken(text: &str) -> Failure {
    Failure::failed(io::Error::other(text.to_owned()))
}

fn table(report: &Report) -> String {
    let outcome = |outcome| match outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "WARNING",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    };
    let row = |step: &Step| {
        let took = step.took_ms.map_or_else(String::new, |took| format!("{took:.1}"));
        [
            step.step.to_owned(),
            step.on.clone(),
            outcome(step.outcome).to_owned(),
            took,
            step.detail.clone(),
        ]
    };
    let rows: Vec<_> = report.steps.iter().map(row).collect();
    let mut text = columns(["STEP", "ON", "RESULT", "MS", "FOUND"], &rows);
    for step in &report.steps {
        if let Some(advice) = &step.advice {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{} {}: {}\n  -> {advice}\n", step.step, step.on, step.detail);
        }
    }
    text
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is not a header; write 'name: value'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?))
}
