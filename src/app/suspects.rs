//! Dials the endpoints that vanished from their registry in numbers, to tell who is really gone.

use std::{rc::Rc, sync::Arc};

use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_local,
};

use crate::{
    connect,
    discovery::Suspect,
    live::Live,
    metrics::Metrics,
    panics::{Caught, Task},
    tls::Clients,
};

/// Most dials at a time: a whole registry may have vanished.
const AT_A_TIME: usize = 64;

/// Dials for as long as there is discovery.
pub(super) async fn dial_all(
    suspects: &mut mpsc::UnboundedReceiver<Suspect>,
    live: &Live,
    clients: &Clients,
    metrics: &Metrics,
) {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    while let Some(suspect) = suspects.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let policy = Arc::clone(live.load().policy(&suspect.service));
        let counted = Rc::new(metrics.service(suspect.service.as_str()));
        let clients = clients.clone();
        spawn_local(async move {
            let Suspect { endpoint, service, .. } = &suspect;
            let asking = connect::answers(endpoint, service, &policy, &clients, &counted);
            let answers = Caught::new(Task::Upstream, asking).await.unwrap_or(false);
            suspect.settle(answers);
            drop(place);
        });
    }
}
