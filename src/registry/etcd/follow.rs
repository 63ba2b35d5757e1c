//! Follows every key below a prefix, through whatever etcd may do.
//!
//! A list, then the changes after it; after a gap another list, from which the reader takes what
//! changed. `pillion registry watch` and the mirror read it. Discovery does more (many ranges on one
//! stream, resumed without a list) and has its own.

use std::time::Duration;

use etcd_client::{EventType, WatchResponse};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    config::EtcdSource,
    panics::{Task, again},
};

use super::{EtcdError, Kv, ListLimits, Member, Members, Position, WatchRequest};

/// Between two questions whether the member is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two lists, to mend what a watch may have missed.
const RELIST: Duration = Duration::from_secs(600);
/// Keys read at most.
const LIMITS: ListLimits = ListLimits { keys: 1_000_000, pause: Duration::from_millis(100) };

/// What there is to know of a prefix, piece by piece. Dropping it ends the work.
#[derive(Debug)]
pub struct Follow {
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

/// One piece.
#[derive(Debug)]
pub enum News {
    /// All keys as of one revision: first of all, and after each gap.
    Listed(Vec<Kv>, Position),
    /// What changed since, in the order of the registry.
    Changed(Vec<Change>),
    /// No member can be asked. Told once until the next list; nothing is known to have changed.
    Lost(EtcdError),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Put(Kv),
    /// Deleted, or gone with its lease.
    Deleted {
        /// Which.
        key: Vec<u8>,
        /// At which revision.
        revision: i64,
    },
}

impl Follow {
    /// Follows the keys that start with `prefix`; the empty one is the whole key space.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(source: EtcdSource, prefix: Vec<u8>) -> Self {
        let (sender, news) = mpsc::channel(64);
        let follow = move || run(source.clone(), prefix.clone(), sender.clone());
        let task = tokio::spawn(again(Task::Policy, follow));
        Self { news, task }
    }

    /// The next piece. It never ends by itself; dropping the future loses nothing.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // The task ends only with this value.
            None => std::future::pending().await,
        }
    }

    /// A piece that is there already.
    pub fn ready(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(source: EtcdSource, prefix: Vec<u8>, news: mpsc::Sender<News>) {
    let mut members = Members::new(source);
    let (mut backoff, mut failures, mut lost) = (super::backoff(), 0, false);
    loop {
        let mut listed = false;
        let error = match members.connect().await {
            Ok((member, _)) => session(&member, &prefix, &news, &mut listed).await,
            Err(error) => error,
        };
        if news.is_closed() {
            return;
        }
        if listed {
            backoff.reset();
            (failures, lost) = (0, false);
        }
        failures += 1;
        if failures >= members.len() {
            failures = 0;
            if !std::mem::replace(&mut lost, true) && news.send(News::Lost(error)).await.is_err() {
                return;
            }
            sleep(backoff.wait()).await;
        }
    }
}

/// Lists and watches over one connection, until something is wrong with it.
async fn session(
    member: &Member,
    prefix: &[u8],
    news: &mpsc::Sender<News>,
    listed: &mut bool,
) -> EtcdError {
    loop {
        let mut keys = Vec::new();
        let list = member.list(prefix, LIMITS, |page| match page {
            Some(page) => keys.extend(page),
            None => keys.clear(),
        });
        let position = match list.await {
            Ok(list) => list.position,
            Err(error) => return error,
        };
        *listed = true;
        if news.send(News::Listed(keys, position)).await.is_err() {
            return member.said("watch", "nobody reads it any more");
        }
        let until = Instant::now() + RELIST;
        tokio::select! {
            error = watch(member, prefix, position.revision + 1, news) => return error,
            error = stays_alive(member, position) => return error,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Ends when the member does not answer, or is another one than it was.
async fn stays_alive(member: &Member, mut seen: Position) -> EtcdError {
    loop {
        sleep(HEARTBEAT).await;
        match member.position().await {
            Ok(now) if now.can_follow(seen) => seen = now,
            Ok(_) => return member.said("status", "has gone back in time"),
            Err(error) => return error,
        }
    }
}

async fn watch(member: &Member, prefix: &[u8], from: i64, news: &mpsc::Sender<News>) -> EtcdError {
    let mut watch = member.watch();
    watch.request(WatchRequest::Create { prefix: prefix.to_vec(), from });
    loop {
        let response = match watch.next().await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return error,
            None => return member.said("watch", "the stream has ended"),
        };
        if response.canceled() {
            let compacted = response.compact_revision();
            return match response.cancel_reason() {
                "" => member.said("watch", &format!("compacted at revision {compacted}")),
                reason => member.said("watch", reason),
            };
        }
        let changes = changes(&response);
        if !changes.is_empty() && news.send(News::Changed(changes)).await.is_err() {
            return member.said("watch", "nobody reads it any more");
        }
    }
}

fn changes(response: &WatchResponse) -> Vec<Change> {
    let change = |event: &etcd_client::Event| {
        let kv = event.kv()?;
        Some(match event.event_type() {
            EventType::Put => Change::Put(kv.into()),
            EventType::Delete => {
                Change::Deleted { key: kv.key().to_vec(), revision: kv.mod_revision() }
            }
        })
    };
    response.events().iter().filter_map(change).collect()
}
