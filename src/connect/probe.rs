//! Whether an endpoint answers, for whoever has no call for it.

use super::dial::{DialError, Ending, dial, reach};
use crate::{
    config::{Policy, Ready},
    metrics::ServiceMetrics,
    model::Endpoint,
};

/// Whether `endpoint` can be connected, by the rule (`ready`) and within the time that its calls have.
/// One that does not answer in time is asked once more: a packet may have been lost.
pub async fn answers(endpoint: &Endpoint, policy: &Policy, metrics: &ServiceMetrics) -> bool {
    for _ in 0..2 {
        match try_once(endpoint, policy, metrics).await {
            Err(DialError::Timeout { .. }) => {}
            reached => return reached.is_ok(),
        }
    }
    false
}

async fn try_once(
    endpoint: &Endpoint,
    policy: &Policy,
    metrics: &ServiceMetrics,
) -> Result<(), DialError> {
    let limit = policy.connect_timeout;
    match policy.ready {
        Ready::Settings => {
            dial(endpoint, policy.ready, Ending::WithCall, limit, metrics).await.map(drop)
        }
        Ready::Tcp => reach(endpoint, limit).await,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::net::TcpListener;

    use super::*;
    use crate::{metrics::Metrics, model::Record};

    #[tokio::test]
    async fn who_accepts_but_says_nothing_answers_where_that_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint {
            record: Arc::new(Record::new(address.to_string().parse().unwrap(), "test")),
            source: "main".into(),
            key: "".into(),
            load: Arc::default(),
        };
        let metrics = Metrics::new().service("orders");
        let answers = async |ready| {
            let connect_timeout = Duration::from_millis(100);
            let policy = Policy { ready, connect_timeout, ..Policy::default() };
            answers(&endpoint, &policy, &metrics).await
        };
        assert!(answers(Ready::Tcp).await);
        assert!(!answers(Ready::Settings).await);
        drop(listener);
        assert!(!answers(Ready::Tcp).await);
    }
}
