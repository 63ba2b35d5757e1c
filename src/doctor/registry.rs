//! Whether the sources can be read, and what they hold of the service.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{Outcome, Step, timed};
use crate::config::{EtcdSource, Policy, Settings, SourceKind, nearest};
use crate::discovery::{self, ResolveError};
use crate::formats::Layout;
use crate::model::{ServiceName, Snapshot};
use crate::registry::{
    book::{Book, Scope},
    etcd::{EtcdError, ListLimits, Members},
};

/// Longest time that the list of a service may take here; a call waits for `connect_timeout` only.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys that are looked through for where the service might be.
const LOOKED_THROUGH: usize = 50_000;
/// Rejected records that are shown.
const SHOWN: usize = 5;

/// Asks every member of every etcd source where it stands.
pub(super) async fn ask_members(settings: &Settings, steps: &mut Vec<Step>) {
    for source in &settings.sources {
        let SourceKind::Etcd(etcd) = &source.kind else { continue };
        let asks = etcd.endpoints.iter().map(|url| async move {
            let one = EtcdSource { endpoints: vec![url.clone()], ..etcd.clone() };
            let (answer, took) = timed(async { Members::new(one).connect().await }).await;
            (url, answer.map(|(_, position)| position), took)
        });
        let answers = join_all(asks).await;
        let well = answers.iter().filter(|(_, answer, _)| answer.is_ok()).count();
        let clusters: Vec<u64> = answers
            .iter()
            .filter_map(|(_, answer, _)| Some(answer.as_ref().ok()?.cluster))
            .collect();
        for (url, answer, took) in answers {
            let on = format!("{} {url}", source.name);
            let step = match answer {
                Err(error) => {
                    // As long as one answers, calls get through.
                    let outcome = if well == 0 { Outcome::Failed } else { Outcome::Warning };
                    let text = error.to_string();
                    let text = text.strip_prefix(&format!("{url}: ")).unwrap_or(&text);
                    Step::ok("etcd", on, text).but(outcome, advice(&error))
                }
                Ok(position) => {
                    let step = Step::ok("etcd", on, format!("at revision {}", position.revision));
                    match clusters.iter().all(|cluster| *cluster == position.cluster) {
                        true => step,
                        false => step.but(
                            Outcome::Failed,
                            "the members of this source are of different clusters: give each \
                             cluster a source of its own",
                        ),
                    }
                }
            };
            steps.push(step.took(took));
        }
    }
}

fn advice(error: &EtcdError) -> String {
    let text = error.to_string();
    match error {
        EtcdError::File { .. } => "let the user of this process read the file".to_owned(),
        _ if error.is_permission() => {
            "grant the user read access to the source's prefix".to_owned()
        }
        _ if text.contains("authentication failed") || text.contains("user name is empty") => {
            "check username and password_file of the source".to_owned()
        }
        _ => "is etcd running there, and does this host reach it? \
              `etcdctl --endpoints URL endpoint health` asks the same"
            .to_owned(),
    }
}

/// Lists the service as a proxy would for its first call.
pub(super) async fn list(
    settings: &Settings,
    service: &ServiceName,
    policy: &Policy,
    steps: &mut Vec<Step>,
) -> Option<Arc<Snapshot>> {
    let (directory, _discovery) = discovery::start_with(
        settings.sources.clone(),
        discovery::Options { own: settings.own_addresses(), ..Default::default() },
    );
    let (found, took) = timed(directory.resolve(service, PATIENCE)).await;
    let step = |detail: String| Step::ok("list", service.as_str(), detail).took(took);
    let snapshot = match found {
        Ok(found) => Arc::clone(&found.snapshot()),
        Err(error @ ResolveError::Unavailable { .. }) => {
            steps.push(step(error.to_string()).but(
                Outcome::Failed,
                "a proxy that starts now knows no endpoint of it; mend the source",
            ));
            return None;
        }
        Err(ResolveError::Absent(_)) => {
            let advice = whereabouts(settings, service).await;
            let text = format!("no source knows a service {service}");
            steps.push(step(text).but(Outcome::Failed, advice));
            return None;
        }
    };
    let (endpoints, rejected) = (snapshot.endpoints.len(), snapshot.rejected.len());
    let noun = if endpoints == 1 { "endpoint" } else { "endpoints" };
    let counted = step(format!("{endpoints} {noun} at revision {}", snapshot.revision));
    steps.push(match (endpoints, took > policy.connect_timeout) {
        (0, _) => counted.but(Outcome::Failed, "nothing that could be called is registered"),
        (_, true) => counted.but(
            Outcome::Warning,
            "the first call of a service waits no longer than connect_timeout for its list: raise it, \
             or use mode = \"eager\"",
        ),
        (_, false) => counted,
    });
    for record in snapshot.rejected.iter().take(SHOWN) {
        let step = Step::ok("list", &*record.key, record.reason.clone());
        steps.push(step.but(
            Outcome::Warning,
            "mend or delete the key, or set the source's `format` if it is of another one",
        ));
    }
    if rejected > SHOWN {
        let more = format!("{} more records cannot be used", rejected - SHOWN);
        let advice = format!("`pillion registry lint {service}` shows all of them");
        steps.push(Step::ok("list", service.as_str(), more).but(Outcome::Warning, advice));
    }
    Some(snapshot)
}

/// Where a service that no source knows may be: under another name, or another prefix.
async fn whereabouts(settings: &Settings, service: &ServiceName) -> String {
    for source in &settings.sources {
        let SourceKind::Etcd(etcd) = &source.kind else { continue };
        if let Ok(Some(place)) = look(etcd, service).await {
            return place;
        }
    }
    "is it registered at all, and is the authority the name that it registers under? \
     `pillion registry ls` shows the names that there are"
        .to_owned()
}

async fn look(etcd: &EtcdSource, service: &ServiceName) -> Result<Option<String>, EtcdError> {
    let Some(layout) = Layout::new(&etcd.format, &etcd.prefix) else { return Ok(None) };
    let (member, _) = Members::new(etcd.clone()).connect_any().await?;
    let limits = ListLimits { keys: LOOKED_THROUGH, pause: Duration::ZERO };
    let mut keys = Vec::new();
    let scope = Scope::whole(layout);
    member
        .list(scope.prefix().as_bytes(), limits, |page| keys.extend(page.into_iter().flatten()))
        .await?;
    let mut book = Book::new(scope);
    book.list(keys);
    let mut names: Vec<&str> = book.entries().map(|entry| entry.service.as_str()).collect();
    names.dedup();
    let spelt = names.iter().find(|name| name.eq_ignore_ascii_case(service.as_str()));
    if let Some(name) = spelt.copied().or_else(|| nearest(service.as_str(), names.iter().copied()))
    {
        return Ok(Some(format!("there is a service {name}: is that meant?")));
    }
    // Somewhere else in the key space, if this user may see that.
    let mut found = None;
    let inner = format!("/{}/", service.key());
    let list = member.list(b"", limits, |page| {
        for kv in page.into_iter().flatten() {
            let key = String::from_utf8_lossy(&kv.key);
            if found.is_none()
                && let Some(at) = key.find(&inner)
            {
                found = Some(key[..at].to_owned());
            }
        }
    });
    // What could be seen before an error counts, too.
    let _ = list.await;
    Ok(found.map(|prefix| {
        format!("there are keys of it below {prefix:?}: set the source's `prefix` to that")
    }))
}
