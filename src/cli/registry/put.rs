//! `pillion registry put`: one record, as the framework of a format writes it.

use std::{collections::BTreeMap, io, time::Duration};

use clap::Args;

use super::{Place, asked_to_end, duration, view::now};
use crate::cli::failure::{Failure, note, print};
use crate::formats::{EncodeError, FORMATS, Layout, Written};
use crate::model::{Address, Record, ServiceName};
use crate::registry::etcd::{EtcdError, Hold, Lease, LeaseId, Member};

/// Write a record into etcd, as the framework of --format does
///
/// Without --ttl the key stays until somebody deletes it; with it, until its time has passed; with
/// --keep too, as long as this command runs. A key that is there already is left alone.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Put {
    /// Service that the endpoint is one of
    service: ServiceName,

    /// Where it listens: host:port
    address: Address,

    /// Name of the instance; the address without it
    #[arg(long)]
    id: Option<String>,

    /// Share of traffic relative to its siblings; 0 takes none
    #[arg(long, value_name = "N", default_value_t = Record::DEFAULT_WEIGHT)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    weight: u32,

    /// Version of the software
    #[arg(long, default_value = "")]
    version: String,

    /// Failure domain
    #[arg(long, default_value = "")]
    zone: String,

    /// Further metadata; repeat for several
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,

    /// The endpoint speaks TLS
    #[arg(long)]
    tls: bool,

    /// Put the key under a lease of this time, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,

    /// Keep the lease alive until Ctrl-C, and take the key away then
    #[arg(long, requires = "ttl")]
    keep: bool,

    /// Write over a key that is there already
    #[arg(long)]
    replace: bool,

    /// Show key and value, and write nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  pillion registry put orders 10.0.0.5:9000 --format etcd-naming
  pillion registry put orders 10.0.0.5:9000 --format kratos --prefix /microservices \\
      --id orders-1 --weight 50 --version v2 --zone a --meta gpu=true
  pillion registry put orders 10.0.0.5:9000 --format go-zero --ttl 15s --keep
  pillion registry put orders 10.0.0.5:9000 --format koala --dry-run";

/// A lease id that stands for one yet to be granted.
const ANY_LEASE: i64 = 1_111_111_111_111_111_111;

impl Put {
    pub(super) async fn run(self, place: Place) -> Result<(), Failure> {
        let record = self.record();
        let written = self.encode(&place.layout, &record, ANY_LEASE)?;
        if self.ttl.is_none() && written != self.encode(&place.layout, &record, ANY_LEASE + 1)? {
            let format = &place.source.format;
            let text = format!("format {format} names its keys after the lease: give --ttl");
            return Err(Failure::Usage(text));
        }
        let note = self.note(&place.layout, &record, &written);
        if self.dry_run {
            let key = written.key.replace(&ANY_LEASE.to_string(), "<lease>");
            let Written { value, .. } = written;
            let text = shown(&key, &value, &self.promise(None));
            return print(format!("would write\n{text}{note}"));
        }
        let (member, _) = place.connect().await?;
        let there = member.get(written.key.as_bytes()).await.map_err(Failure::failed)?.0;
        if let Some(there) = there.filter(|_| !self.replace) {
            let Written { key, .. } = written;
            let lease = LeaseId::of(there.lease);
            let lease =
                lease.map_or_else(|| "no lease".to_owned(), |lease| format!("lease {lease}"));
            let value = String::from_utf8_lossy(&there.value);
            let text =
                format!("{key} is there already, under {lease}; --replace writes over it: {value}");
            return Err(Failure::failed(io::Error::other(text)));
        }
        match self.ttl {
            Some(ttl) if self.keep => self.keep(place, &record, ttl).await,
            ttl => {
                let lease = match ttl {
                    Some(ttl) => Some(member.grant(ttl).await.map_err(Failure::failed)?),
                    None => None,
                };
                let written = self.encode(&place.layout, &record, id(lease))?;
                write(&member, &written, lease).await.map_err(Failure::failed)?;
                print(shown(&written.key, &written.value, &self.promise(lease)) + &note)
            }
        }
    }

    /// Writes under a lease that is held until somebody asks for the end, and again under another
    /// one whenever it is lost.
    async fn keep(&self, place: Place, record: &Record, ttl: Duration) -> Result<(), Failure> {
        let mut ended = std::pin::pin!(asked_to_end()?);
        let mut hold = Hold::new(place.source.clone(), ttl, false);
        let mut done = None;
        let mut told = String::new();
        loop {
            let held = hold.now();
            let problem = match held.writer {
                Some((_, lease)) if done == Some(lease.id) => None,
                Some((member, lease)) => {
                    let written = self.encode(&place.layout, record, lease.id.get())?;
                    match write(&member, &written, Some(lease)).await {
                        Ok(()) => {
                            let again = if done.is_some() { " again, after a loss" } else { "" };
                            done = Some(lease.id);
                            told.clear();
                            let text =
                                shown(&written.key, &written.value, &self.promise(Some(lease)));
                            let note = self.note(&place.layout, record, &written);
                            print(format!("{} written{again}\n{text}{note}", now()))?;
                            None
                        }
                        Err(error) => {
                            hold.doubt();
                            Some(error)
                        }
                    }
                }
                None => held.problem,
            };
            let mut retry = Duration::MAX;
            if let Some(problem) = problem {
                retry = Duration::from_secs(1);
                if told != problem.to_string() {
                    told = problem.to_string();
                    note(&format!("{} trying on: {told}", now()));
                }
            }
            tokio::select! {
                () = hold.changed() => {}
                () = tokio::time::sleep(retry) => {}
                () = &mut ended => break,
            }
        }
        let end = if hold.end().await { "taken away" } else { "left to its lease" };
        print(format!("{} {end}\n", now()))
    }

    fn record(&self) -> Record {
        // What is encoded does not say in which format.
        let record = Record::new(self.address.clone(), "");
        Record {
            id: self.id.clone().unwrap_or(record.id),
            weight: self.weight,
            version: self.version.clone(),
            zone: self.zone.clone(),
            metadata: BTreeMap::from_iter(self.meta.iter().cloned()),
            tls: self.tls,
            ..record
        }
    }

    fn encode(&self, layout: &Layout, record: &Record, lease: i64) -> Result<Written, Failure> {
        layout.encode(&self.service, record, lease).map_err(|error| refused(&error))
    }

    /// What of the record the format has no words for.
    fn note(&self, layout: &Layout, record: &Record, written: &Written) -> String {
        let Written { key, value } = written;
        let read = layout.read_for(&self.service, key.as_bytes(), value.as_bytes());
        let read = read.and_then(Result::ok).map(|reading| reading.records).unwrap_or_default();
        let lost = read.first().map(|copy| record.lost_in(copy)).unwrap_or_default();
        match lost.is_empty() {
            true => String::new(),
            false => format!("note   the format does not say {}\n", lost.join(", ")),
        }
    }

    /// How long the key will be there.
    fn promise(&self, lease: Option<Lease>) -> String {
        match (lease, self.ttl, self.keep) {
            (_, None, _) => "none: the key stays until somebody deletes it".to_owned(),
            (None, Some(ttl), _) => format!("one of {}", humantime::format_duration(ttl)),
            (Some(Lease { id, ttl }), Some(_), keep) => {
                let ttl = humantime::format_duration(ttl);
                let until = match keep {
                    true => "kept alive until this command ends",
                    false => "the key goes with it, for nobody keeps it alive",
                };
                format!("{id} of {ttl}: {until}")
            }
        }
    }
}

/// What the format cannot write is a matter of what was asked for.
pub(super) fn refused(error: &EncodeError) -> Failure {
    Failure::Usage(match error {
        EncodeError::ReadOnly(_) => {
            format!("{error}; --format takes one of {}", written_formats().join(", "))
        }
        EncodeError::Cannot { .. } => error.to_string(),
    })
}

/// The formats that can be written.
pub(super) fn written_formats() -> Vec<&'static str> {
    let address: Option<Address> = "10.0.0.1:1".parse().ok();
    let service: Option<ServiceName> = "a".parse().ok();
    let (Some(address), Some(service)) = (address, service) else { return Vec::new() };
    let record = Record::new(address, "");
    let is_written = |format: &&str| {
        let written = Layout::new(format, "/a").map(|layout| layout.encode(&service, &record, 1));
        !matches!(written, None | Some(Err(EncodeError::ReadOnly(_))))
    };
    FORMATS.iter().copied().filter(is_written).collect()
}

fn id(lease: Option<Lease>) -> i64 {
    lease.map_or(0, |lease| lease.id.get())
}

async fn write(
    member: &Member,
    Written { key, value }: &Written,
    lease: Option<Lease>,
) -> Result<(), EtcdError> {
    let lease = lease.map(|lease| lease.id);
    member.put(key.as_bytes(), value.as_bytes(), lease).await.map(drop)
}

fn shown(key: &str, value: &str, lease: &str) -> String {
    format!("key    {key}\nvalue  {value}\nlease  {lease}\n")
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}
