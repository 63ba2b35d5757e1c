//! What every test starts with: endpoints, the etcd that they are registered in, and a proxy.

use std::net::SocketAddr;

use crate::backend::Backend;
use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::wait::until;

/// As etcd's own naming package writes an endpoint of `orders`.
pub(crate) async fn register(etcd: &Etcd, address: SocketAddr) {
    etcd.put(&key(address), &value(address)).await;
}

pub(crate) fn key(address: SocketAddr) -> String {
    format!("orders/{address}")
}

pub(crate) fn value(address: SocketAddr) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#)
}

/// Endpoints, registered.
pub(crate) async fn backends(etcd: &Etcd, count: usize) -> Vec<Backend> {
    let mut backends = Vec::new();
    for _ in 0..count {
        let backend = Backend::echo().await;
        register(etcd, backend.address()).await;
        backends.push(backend);
    }
    backends
}

/// A proxy whose only source is etcd at this URL; `keys` are further ones of the source.
pub(crate) async fn proxy(url: &str, keys: &str) -> Pillion {
    Program::new(&source(url, keys)).start().await
}

pub(crate) fn source(url: &str, keys: &str) -> String {
    format!("[[source]]\nendpoints = [\"{url}\"]\n{keys}\n")
}

/// How many endpoints of `orders` the proxy knows in each of these states.
pub(crate) async fn endpoints<const N: usize>(pillion: &Pillion, states: [&str; N]) -> [usize; N] {
    let page = pillion.get("/services/orders").await.json();
    let endpoints = page["endpoints"].as_array().cloned().unwrap_or_default();
    states.map(|state| endpoints.iter().filter(|endpoint| endpoint["state"] == state).count())
}

/// How old the proxy says its knowledge is, in seconds.
pub(crate) async fn age(pillion: &Pillion) -> f64 {
    pillion.metrics().await.sum("source_age_seconds", &[])
}

/// Waits until the proxy knows so many endpoints of `orders` that are ready, and no suspects.
pub(crate) async fn until_ready(pillion: &Pillion, count: usize) {
    until(&format!("{count} endpoints are ready"), async || {
        endpoints(pillion, ["ready", "suspect"]).await == [count, 0]
    })
    .await;
}
