//! Holds a lease for as long as somebody wants it, and makes another when it is lost.
//!
//! The mirror and `pillion registry put --keep` write under it. They are told of each new lease and
//! then write again what the last one held.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::backoff::Backoff;
use crate::config::EtcdSource;

use super::{EtcdError, Lease, Member, Members, REQUEST_TIMEOUT};

/// A lease that is kept alive every third of its time. Dropping it leaves the lease to run out;
/// [`Hold::end`] ends it at once.
#[derive(Debug)]
pub struct Hold {
    held: watch::Receiver<Held>,
    doubt: Arc<Notify>,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<bool>,
}

/// What there is to write with now.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// A member that answers, and the lease; none while etcd cannot be reached.
    pub writer: Option<(Member, Lease)>,
    /// Why there is none.
    pub problem: Option<EtcdError>,
}

impl Hold {
    /// Holds a lease of `ttl`. With `mirrored`, [`super::is_mirrored`] knows it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(source: EtcdSource, ttl: Duration, mirrored: bool) -> Self {
        let (sender, held) = watch::channel(Held::default());
        let (end, ended) = oneshot::channel();
        let doubt = Arc::<Notify>::default();
        let keeper = Keeper {
            members: Members::new(source),
            ttl,
            mirrored,
            lease: None,
            held: sender,
            doubt: Arc::clone(&doubt),
        };
        let task = tokio::spawn(keeper.run(ended));
        Self { held, doubt, end: Some(end), task }
    }

    /// What there is to write with; the next [`Self::changed`] waits for something else.
    pub fn now(&mut self) -> Held {
        self.held.borrow_and_update().clone()
    }

    /// Waits until [`Self::now`] says something else. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            // The task ends only with this value, or by a panic, which has been told.
            std::future::pending::<()>().await;
        }
    }

    /// Says that a write failed: the lease is looked at now, rather than when it is due.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Ends the lease, and with it every key under it. Waits for etcd a few seconds at most, and says
    /// whether it is done; otherwise the lease runs out by itself.
    pub async fn end(mut self) -> bool {
        drop(self.end.take());
        matches!(timeout(REQUEST_TIMEOUT, &mut self.task).await, Ok(Ok(true)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    members: Members,
    ttl: Duration,
    mirrored: bool,
    lease: Option<Lease>,
    held: watch::Sender<Held>,
    doubt: Arc<Notify>,
}

impl Keeper {
    /// Works until the end is asked for, and says whether the lease has ended, too.
    async fn run(mut self, mut ended: oneshot::Receiver<()>) -> bool {
        let mut backoff = super::backoff();
        loop {
            let working = async {
                let error = match self.members.connect_any().await {
                    Ok((member, _)) => self.session(&member, &mut backoff).await,
                    Err(error) => error,
                };
                self.held.send_replace(Held { writer: None, problem: Some(error) });
                sleep(backoff.wait()).await;
            };
            tokio::select! {
                () = working => {}
                _ = &mut ended => break,
            }
        }
        let last = self.held.borrow().writer.clone();
        match (last, self.lease) {
            (Some((member, lease)), _) => member.revoke(lease.id).await.is_ok(),
            (None, lease) => lease.is_none(),
        }
    }

    /// Keeps the lease over one connection, until something is wrong with that.
    async fn session(&mut self, member: &Member, backoff: &mut Backoff) -> EtcdError {
        let mut told = false;
        loop {
            match self.renew(member).await {
                Ok(false) if told => {}
                Ok(_) => {
                    let writer = self.lease.map(|lease| (member.clone(), lease));
                    self.held.send_replace(Held { writer, problem: None });
                    told = true;
                }
                Err(error) => return error,
            }
            backoff.reset();
            let third = self.lease.map_or(self.ttl, |lease| lease.ttl) / 3;
            tokio::select! {
                () = sleep(third) => {}
                // Not more often than a person could want it.
                () = async { self.doubt.notified().await; sleep(Duration::from_millis(50)).await } => {}
            }
        }
    }

    /// Keeps the lease alive, or gets a new one; says whether it did that.
    async fn renew(&mut self, member: &Member) -> Result<bool, EtcdError> {
        if let Some(lease) = self.lease
            && member.keep_alive(lease.id).await?
        {
            return Ok(false);
        }
        self.lease = None;
        self.lease = Some(match self.mirrored {
            true => member.grant_mirrored(self.ttl).await?,
            false => member.grant(self.ttl).await?,
        });
        Ok(true)
    }
}
