//! A proxy under attack, and a bystander who calls through it all the while.

use std::{net::SocketAddr, time::Instant};

use crate::backend::Backend;
use crate::client::Client;
use crate::metrics::Metrics;
use crate::program::{Pillion, Program};
use crate::raw::Wire;
use crate::wait::until;

/// GOAWAY with this says: you do too much of that (RFC 9113 section 7).
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;
/// What the memory of the program may grow by, whatever is done to it.
const MOST_GROWTH: u64 = 16 << 20;

/// An endpoint `echo`, and the proxy to it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) pillion: Pillion,
    pub(crate) backend: Backend,
}

impl Scene {
    /// `limits` are keys of `[listener.limits]`.
    pub(crate) async fn new(limits: &str) -> Self {
        Self::with(limits, "").await
    }

    /// The same, with further tables.
    pub(crate) async fn with(limits: &str, tables: &str) -> Self {
        let backend = Backend::echo().await;
        let pillion = proxy(limits, tables, [backend.as_endpoint("echo")]).await;
        Self { pillion, backend }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.pillion.address()
    }

    /// A connection on which anything can be sent.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// Waits until connections or calls have gone beyond the limit, so many times.
    pub(crate) async fn until_limited(&self, reason: &str, times: f64) {
        let what = format!("{reason} is counted");
        let so = |m: &Metrics| m.sum("downstream_limited_total", &[("reason", reason)]) == times;
        self.pillion.until_metrics(&what, so).await;
    }

    /// What is counted, once so many calls have ended.
    pub(crate) async fn until_ended(&self, calls: usize) -> Metrics {
        let mut metrics = self.pillion.metrics().await;
        until("a call is counted", async || {
            metrics = self.pillion.metrics().await;
            metrics.sum("requests_total", &[]) == calls as f64
        })
        .await;
        metrics
    }

    /// Runs `attack` while a bystander calls: every call of that is answered, and the program is not
    /// larger afterwards than it may be.
    pub(crate) async fn endures<T>(&mut self, attack: impl Future<Output = T>) -> T {
        endures(&mut self.pillion, attack).await
    }
}

/// A proxy to these endpoints.
pub(crate) async fn proxy(
    limits: &str,
    tables: &str,
    endpoints: impl IntoIterator<Item = String>,
) -> Pillion {
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.limits]";
    // Bystanders call it, on a machine that may be busy.
    let echo = "[service.echo]\nconnect_timeout = \"20s\"";
    let config = format!("{listener}\n{limits}\n{tables}\n{echo}\n");
    Program::new(&config).endpoints(endpoints).start().await
}

/// As [`Scene::endures`]; there has to be a service `echo`.
pub(crate) async fn endures<T>(pillion: &mut Pillion, attack: impl Future<Output = T>) -> T {
    endures_long(pillion, 0, attack).await
}

/// The same, where so many bytes are allowed to come again with each second that the attack takes.
pub(crate) async fn endures_long<T>(
    pillion: &mut Pillion,
    a_second: u64,
    attack: impl Future<Output = T>,
) -> T {
    let bystander = Client::connect(pillion.address()).await;
    // What is allocated once, and only then.
    for _ in 0..20 {
        assert!(bystander.call("echo").await.is_ok());
    }
    // Makes what is the most now the most ever (proc(5)).
    std::fs::write(format!("/proc/{}/clear_refs", pillion.id()), "5").unwrap();
    let (before, _) = pillion.memory();
    let calling = async {
        loop {
            let answer = bystander.call("echo").await;
            assert!(answer.is_ok(), "a bystander got {answer:?}");
        }
    };
    let began = Instant::now();
    let ended = tokio::select! {
        () = calling => unreachable!("it calls for ever"),
        ended = attack => ended,
    };
    let may_grow = MOST_GROWTH + a_second * began.elapsed().as_secs();
    assert!(bystander.call("echo").await.is_ok());
    assert!(!pillion.has_ended());
    let (_, most) = pillion.memory();
    let grown = most.saturating_sub(before);
    assert!(grown <= may_grow, "it grew by {} KiB from {} KiB", grown >> 10, before >> 10);
    until("nothing is left of it", async || {
        let metrics = pillion.metrics().await;
        // The bystander, and what the attack left open on purpose.
        metrics.sum("requests_in_flight", &[]) == 0.0
    })
    .await;
    ended
}
