//! Those who call: unary calls of all sizes, streams, callers that give up, have no time, or disappear.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use h2::Reason as Code;
use rustls::ClientConfig;
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::backend::send_all;
use crate::client::{Answer, Client, grpc, grpc_with};
use crate::secret::{self, application};
use crate::trouble::SERVICES;
use crate::wait::soon;

/// Callers at a time.
const CALLERS: u64 = 24;

/// What they call.
const CALLED: [&str; 4] = [SERVICES[0], SERVICES[1], SERVICES[2], secret::SERVICE];

/// What came of all calls.
#[derive(Debug)]
pub(crate) struct Load {
    proxy: SocketAddr,
    /// Where it speaks TLS.
    secret: SocketAddr,
    tls: ClientConfig,
    pub(crate) answered: AtomicUsize,
    /// With an error that an endpoint that dies leaves its calls.
    pub(crate) failed: AtomicUsize,
    /// With anything else.
    pub(crate) wrong: AtomicUsize,
}

impl Load {
    pub(crate) fn new(proxy: SocketAddr, secret: SocketAddr, tls: ClientConfig) -> Self {
        let [answered, failed, wrong] = Default::default();
        Self { proxy, secret, tls, answered, failed, wrong }
    }

    /// Callers, until they are told to stop.
    pub(crate) fn call(load: &Arc<Self>, stopped: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let caller = |seed| {
            let (load, stopped) = (Arc::clone(load), stopped.clone());
            tokio::spawn(async move { load.call_until(stopped, Rng::with_seed(seed)).await })
        };
        (0..CALLERS).map(caller).collect()
    }

    async fn call_until(&self, stopped: watch::Receiver<bool>, mut random: Rng) {
        let mut client = self.connect(&mut random).await;
        while !*stopped.borrow() {
            let service = *random.choice(&CALLED).unwrap();
            match random.u8(..20) {
                // Calls that are under way are left behind.
                0 => {
                    let call = client.begin(grpc(service)).await;
                    sleep(Duration::from_millis(random.u64(..5))).await;
                    client = self.connect(&mut random).await;
                    drop(call);
                }
                1 => {
                    let mut call = client.begin(grpc(service)).await;
                    let piece = Bytes::from(vec![7; random.usize(1..50_000)]);
                    let _ = call.body.send_data(piece, false);
                    sleep(Duration::from_millis(random.u64(..5))).await;
                    call.body.send_reset(Code::CANCEL);
                }
                2 => {
                    let hurried = grpc_with(service, &[("grpc-timeout", "1m")]);
                    let answer = client.send(hurried, b"body").await;
                    self.count(answer.map(|answer| (answer, true)));
                }
                3 => self.stream(&client, service, &mut random).await,
                _ => {
                    let body = vec![random.u8(..); random.usize(1..20_000)];
                    let answer = client.send(grpc(service), &body).await;
                    self.count(answer.map(|answer| {
                        let is_whole = answer.body == body;
                        (answer, is_whole)
                    }));
                }
            }
            sleep(Duration::from_millis(random.u64(..20))).await;
        }
    }

    /// One of four speaks TLS.
    async fn connect(&self, random: &mut Rng) -> Client {
        match random.u8(..4) {
            0 => application(self.secret, self.tls.clone()).await,
            _ => Client::connect(self.proxy).await,
        }
    }

    /// Pieces with pauses between them.
    async fn stream(&self, client: &Client, service: &str, random: &mut Rng) {
        let mut call = client.begin(grpc(service)).await;
        let mut sent = 0;
        for _ in 0..20 {
            let piece = Bytes::from(vec![7; random.usize(1..5_000)]);
            sent += piece.len();
            if send_all(&mut call.body, piece).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(random.u64(..20))).await;
        }
        let _ = call.body.send_data(Bytes::new(), true);
        let answer = soon("the end of a stream", Answer::read(call.answer)).await;
        self.count(answer.map(|answer| {
            let is_whole = answer.body.len() == sent;
            (answer, is_whole)
        }));
    }

    fn count(&self, answer: Result<(Answer, bool), h2::Error>) {
        let counter = match answer {
            Ok((answer, true)) if answer.is_ok() => &self.answered,
            // No time, which is what some of them have.
            Ok((answer, _)) if answer.grpc_status() == Some(4) => &self.answered,
            Ok((answer, _)) if answer.grpc_status() == Some(14) => &self.failed,
            // Broken off after its head.
            Err(error) if error.is_reset() => &self.failed,
            other => {
                println!("wrong: {other:?}");
                &self.wrong
            }
        };
        counter.fetch_add(1, Relaxed);
    }
}
