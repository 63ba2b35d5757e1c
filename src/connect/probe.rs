//! Whether an endpoint answers, for whoever has no call for it.

use super::{
    dial::{DialError, Manner, reach, secured},
    own::Unused,
};
use crate::{
    config::{Policy, Ready},
    metrics::ServiceMetrics,
    model::{Endpoint, ServiceName},
    tls::{Clients, Stream},
};

/// Whether `endpoint` of `service` can be connected, by the rule (`ready`) and within the time that its calls have.
/// One that does not answer in time is asked once more: a packet may have been lost.
pub async fn answers(
    endpoint: &Endpoint,
    service: &ServiceName,
    policy: &Policy,
    clients: &Clients,
    metrics: &ServiceMetrics,
) -> bool {
    for _ in 0..2 {
        match try_once(endpoint, service, policy, clients, metrics).await {
            Err(DialError::Timeout { .. }) => {}
            // It cannot be told: nothing is done about it.
            Err(error) if error.is_ours() => return true,
            reached => return reached.is_ok(),
        }
    }
    false
}

/// A connection to `endpoint` of `service`, with TLS where its calls have it. The time limit is the
/// caller's.
///
/// # Errors
/// [`DialError`] says why there is none.
pub async fn open(
    endpoint: &Endpoint,
    service: &ServiceName,
    policy: &Policy,
    clients: &Clients,
) -> Result<Stream, DialError> {
    let manner = Manner::of(policy, endpoint, service, clients).await?;
    secured(endpoint, &manner).await
}

async fn try_once(
    endpoint: &Endpoint,
    service: &ServiceName,
    policy: &Policy,
    clients: &Clients,
    metrics: &ServiceMetrics,
) -> Result<(), DialError> {
    let manner = Manner::of(policy, endpoint, service, clients).await?;
    match policy.ready {
        Ready::Tcp if manner.tls.is_none() => reach(endpoint, manner.limit).await,
        _ => Unused::dial(endpoint, &manner, metrics).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::net::TcpListener;

    use super::*;
    use crate::{metrics::Metrics, model::Record, tls::Keeper};

    #[tokio::test]
    async fn who_accepts_but_says_nothing_answers_where_that_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint {
            record: Arc::new(Record::new(address.to_string().parse().unwrap(), "test")),
            source: "main".into(),
            key: "".into(),
            load: Arc::default(),
            networks: Arc::default(),
        };
        let all = Metrics::new();
        let (metrics, clients) = (all.service("orders"), Keeper::new(all.tls().clone()).clients());
        let service = "orders".parse().unwrap();
        let answers = async |ready| {
            let connect_timeout = Duration::from_millis(100);
            let policy = Policy { ready, connect_timeout, ..Policy::default() };
            answers(&endpoint, &service, &policy, &clients, &metrics).await
        };
        assert!(answers(Ready::Tcp).await);
        assert!(!answers(Ready::Settings).await);
        drop(listener);
        assert!(!answers(Ready::Tcp).await);
    }
}
