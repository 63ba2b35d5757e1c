//! Accepts connections and deals them to the workers.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::watch;

use crate::{
    listener::{Bound, Door, Incoming},
    tls::Server,
    worker::{Phase, Worker},
};

/// Pause after the system could not accept: out of descriptors, most likely. Connections wait in the
/// backlog meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the process drains. What waits in the backlog then is still accepted: those
/// applications believe that they are connected.
pub(super) async fn accept(
    listener: Bound,
    tls: Option<Arc<Server>>,
    workers: Arc<Vec<Worker>>,
    door: Door,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => deal(Incoming { accepted, tls: tls.clone() }, &workers, &door),
                Err(error) => {
                    tracing::warn!(%error, listener = listener.address(), "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            _ = phase.wait_for(|phase| !phase.serves()) => break,
        }
    }
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        deal(Incoming { accepted, tls: tls.clone() }, &workers, &door);
    }
}

/// To the worker with the fewest connections: few, long-lived connections would spread badly by
/// chance.
fn deal(incoming: Incoming, workers: &[Worker], door: &Door) {
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.connections())
        && let Some(admitted) = door.admit(incoming)
    {
        worker.give(admitted);
    }
}
