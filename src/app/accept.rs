//! Accepts connections and deals them to the workers.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::watch, time::timeout};

use crate::{
    descriptors::Descriptors,
    listener::{Accepted, Bound, Door, Incoming, Troubles},
    panics::{Task, go_on, rehearse},
    tls::Server,
    worker::{Phase, Worker},
};

/// Longest pause after the system could not accept: out of descriptors, most likely. Connections wait in
/// the backlog meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Who gets the connections of a listener.
pub(super) struct Dealer {
    pub(super) workers: Arc<Vec<Worker>>,
    pub(super) door: Door,
    pub(super) tls: Option<Arc<Server>>,
}

/// Accepts until the process drains. What waits in the backlog then is still accepted: those
/// applications believe that they are connected.
pub(super) async fn accept(
    listener: Bound,
    dealer: Dealer,
    mut troubles: Troubles,
    descriptors: Descriptors,
    mut phase: watch::Receiver<Phase>,
) {
    go_on(Task::Accept, async || {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => dealer.deal(accepted),
                    Err(error) => {
                        troubles.note(&error);
                        // At once when an application has left. What else there is to wait for does not tell.
                        let _ = timeout(PAUSE, descriptors.freed()).await;
                    }
                },
                _ = phase.wait_for(|phase| !phase.serves()) => return,
            }
        }
    })
    .await;
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        dealer.deal(accepted);
    }
}

impl Dealer {
    /// To the worker with the fewest connections: few, long-lived connections would spread badly by
    /// chance.
    fn deal(&self, accepted: Accepted) {
        rehearse("accept");
        let incoming = Incoming { accepted, tls: self.tls.clone() };
        let there = self.workers.iter().filter(|worker| !worker.has_ended());
        if let Some(worker) = there.min_by_key(|worker| worker.connections())
            && let Some(admitted) = self.door.admit(incoming)
        {
            worker.give(admitted);
        }
    }
}
