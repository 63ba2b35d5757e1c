//! The path of a call, top to bottom.

use std::{rc::Rc, sync::Arc};

use tower::{Service, ServiceBuilder};

use crate::{
    access_log::AccessLog,
    balance::Tables,
    call::{Call, CallError, Reply},
    connect::{Connector, Wires},
    discovery::Directory,
    drain::Drain,
    limit::Gates,
    live::{Followed, Live},
    memory::Memory,
    metrics::Metrics,
    middleware::{
        AdmitLayer, BalanceLayer, ConnectLayer, DeadlineLayer, FaultLayer, Forward, HeadersLayer,
        LimitLayer, ObserveLayer, ResolveLayer,
    },
    recent::Intake,
    tls::Clients,
    view::Views,
    wards::Reports,
};

/// What the workers share.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The newest settings.
    pub live: Arc<Live>,
    /// Where services are found.
    pub directory: Directory,
    /// How many calls are let through.
    pub gates: Gates,
    /// Where calls are counted.
    pub metrics: Metrics,
    /// How full the memory is.
    pub memory: Memory,
    /// Where calls are logged.
    pub access_log: AccessLog,
    /// What balancing by key shares.
    pub tables: Tables,
    /// Where is told what endpoints do.
    pub reports: Reports,
    /// Where calls that failed or were slow are handed over.
    pub recent: Intake,
    /// TLS towards endpoints.
    pub clients: Clients,
}

/// The chain of one worker. A call goes down it line by line; the reply comes back up.
pub fn chain(
    parts: &Parts,
    drain: Rc<Drain>,
    wires: Rc<Wires>,
) -> impl Service<Box<Call>, Response = Reply, Error = CallError, Future: 'static> + Clone + use<> {
    let Parts { metrics, live, tables, reports, .. } = parts;
    let views = Views::new(metrics, Arc::clone(live), tables.clone(), reports.clone());
    let views = Rc::new(views);
    let followed = Rc::new(Followed::new(Arc::clone(live)));
    let (log, recent) = (parts.access_log.clone(), parts.recent.clone());
    let observe = ObserveLayer::new(Rc::clone(&views), Rc::clone(&followed), log, recent);
    let connect =
        ConnectLayer::new(Connector::new(parts.clients.clone(), wires), parts.directory.clone());
    ServiceBuilder::new()
        .layer(observe)
        .layer(AdmitLayer::new(drain, parts.gates.clone()))
        .layer(HeadersLayer::new(Rc::clone(&followed)))
        .layer(ResolveLayer::new(followed, parts.directory.clone(), views))
        .layer(LimitLayer::new(parts.gates.clone()))
        .layer(DeadlineLayer)
        .layer(FaultLayer)
        .layer(BalanceLayer)
        .layer(connect)
        .service(Forward)
}
