//! Calls that go on while the test breaks things, and the ones that were lost by it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use crate::client::{Client, grpc, message};
use crate::program::Pillion;
use crate::wait::until;

/// Callers at a time.
const CALLERS: usize = 4;
/// Between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls of one service, one after the other on a few connections.
#[derive(Debug)]
pub(crate) struct Flow {
    seen: Arc<Seen>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

impl Flow {
    /// Starts to call; some calls have been answered when it returns.
    pub(crate) async fn start(pillion: &Pillion, service: &str) -> Self {
        let seen = Arc::<Seen>::default();
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let client = Client::connect(pillion.address()).await;
            let (seen, service) = (Arc::clone(&seen), service.to_owned());
            callers.push(tokio::spawn(async move {
                while !seen.stop.load(Relaxed) {
                    let answer = client.send(grpc(&service), &message(b"hello")).await.unwrap();
                    if answer.is_ok() {
                        seen.answered.fetch_add(1, Relaxed);
                    } else {
                        let why = answer.header("grpc-message").unwrap_or("no message");
                        seen.lost.lock().unwrap().push(why.to_owned());
                    }
                    sleep(PAUSE).await;
                }
            }));
        }
        let flow = Self { seen, callers };
        flow.more().await;
        flow
    }

    /// Waits until some more calls have been answered.
    pub(crate) async fn more(&self) {
        let before = self.seen.answered.load(Relaxed);
        until("more calls are answered", async || {
            self.seen.answered.load(Relaxed) >= before + 5 * CALLERS
        })
        .await;
    }

    /// Ends it. Every call must have been answered, and there must have been some.
    pub(crate) async fn end(self) {
        let lost = self.lost().await;
        assert!(
            lost.is_empty(),
            "{} calls were lost: {:?}",
            lost.len(),
            &lost[..lost.len().min(3)]
        );
    }

    /// Why calls were lost, so far.
    pub(crate) fn seen_lost(&self) -> Vec<String> {
        self.seen.lost.lock().unwrap().clone()
    }

    /// Ends it, and says what became of the calls that were not answered.
    pub(crate) async fn lost(self) -> Vec<String> {
        self.seen.stop.store(true, Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut self.seen.lost.lock().unwrap())
    }
}
