//! Data-plane threads: each one runs connections and calls, and shares nothing with the others.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::Builder,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::{spawn_local, yield_now},
};

use crate::{
    drain::Drain,
    listener::{Admitted, Breaches, Guards, OfWorker, serve_connection},
    panics::{Caught, Task, again, go_on, rehearse},
    proxy::{Parts, chain},
    pulse::Pulse,
};

/// Tasks that a busy worker polls before it asks the system what has come in. More of them at a time means
/// that more frames share a read and a write: at 256 calls in flight, a call costs 5 % less than with
/// tokio's 61, and its latency falls with that. A turn takes 1 to 3 us, so nobody waits long for it; a
/// worker with less to do asks sooner.
const TURNS: u32 = 256;

/// What the process wants of its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Running,
    /// Serve, but nobody shall come who has not come before.
    Leaving,
    /// Let calls end, take no new connections.
    Draining,
    /// Tell the calls that are left why they end.
    Ending,
    /// Stop now.
    Stopped,
}

impl Phase {
    /// Whether new connections and calls are served.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Running | Self::Leaving)
    }
}

/// A handle on one worker.
#[derive(Debug)]
pub struct Worker {
    inbox: UnboundedSender<Delivery>,
    connections: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

/// Says that the thread of a worker has ended, whatever made it.
struct Ending(UnboundedSender<()>);

/// A connection for a worker; none when no more will come.
type Delivery = Option<(Admitted, Counted)>;

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Counted {
    connections: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts a worker, which ends after `phase` has turned to draining and its connections are over, and
    /// then says so to `ended`.
    ///
    /// # Errors
    /// The system gives no thread or no event queue.
    pub fn start(
        number: usize,
        parts: Parts,
        phase: watch::Receiver<Phase>,
        ended: UnboundedSender<()>,
    ) -> io::Result<Self> {
        let (inbox, accepted) = unbounded_channel();
        let (started, ready) = std::sync::mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _ending = Ending(ended);
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.event_interval(TURNS).enable_all();
            let runtime = match runtime.build_local(Default::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(()));
            rehearse("worker's thread");
            runtime.block_on(async {
                parts.metrics.tasks().add(&format!("worker-{number}"));
                run(parts, accepted, phase).await;
            });
        });
        let thread = thread.map_err(|error| {
            let limited = "the number of threads may be limited (ulimit -u, TasksMax, pids.max)";
            let why = format!("no thread for worker {number}: {error}; {limited}");
            io::Error::new(error.kind(), why)
        })?;
        ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
        Ok(Self { inbox, connections, thread })
    }

    /// Connections that it has now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Gives it a connection to serve.
    pub fn give(&self, admitted: Admitted) {
        self.connections.fetch_add(1, Relaxed);
        let counted = Counted { connections: Arc::clone(&self.connections) };
        // A worker that has stopped drops the connection, which closes it.
        let _ = self.inbox.send(Some((admitted, counted)));
    }

    /// Says that no more connections will come: it ends after those that it has, once the process
    /// drains.
    pub fn no_more(&self) {
        let _ = self.inbox.send(None);
    }

    /// Whether its thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

async fn run(
    parts: Parts,
    mut accepted: UnboundedReceiver<Delivery>,
    mut phase: watch::Receiver<Phase>,
) {
    let worker = OfWorker {
        drain: Rc::new(Drain::default()),
        pulse: Rc::new(Pulse::default()),
        breaches: Rc::new(Breaches::new(&parts.metrics)),
        guards: Rc::new(Guards::default()),
        turns: Rc::default(),
        memory: parts.memory.clone(),
    };
    let chain = chain(&parts, Rc::clone(&worker.drain), worker.turns.wires());
    let relieving = worker.clone();
    spawn_local(again(Task::Worker, move || relieve(relieving.clone())));
    let (open, mut all_closed) = tokio::sync::mpsc::channel::<()>(1);
    let serve = |(admitted, counted): (Admitted, Counted)| {
        let Admitted { incoming, limits, place } = admitted;
        let serving = serve_connection(incoming, limits, chain.clone(), worker.clone());
        let open = open.clone();
        spawn_local(async move {
            let _ = Caught::new(Task::Connection, serving).await;
            drop((counted, place, open));
        });
    };
    // A worker that stopped to take connections would be given all that come: it has the fewest.
    let mut taking = true;
    go_on(Task::Worker, async || {
        take(&mut accepted, &mut phase, &mut taking, &worker.drain, &serve).await;
    })
    .await;
    // Told "no more" before it saw the phase change, a busy worker has not begun to drain yet.
    worker.drain.begin();
    drop(open);
    // Ends when the last connection has dropped its end, or at once when told to stop.
    while heed(*phase.borrow_and_update(), &worker.drain) {
        tokio::select! {
            _ = all_closed.recv() => return,
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}

/// Takes connections until no more will come and the process drains, or until it stops.
async fn take(
    accepted: &mut UnboundedReceiver<Delivery>,
    phase: &mut watch::Receiver<Phase>,
    taking: &mut bool,
    drain: &Drain,
    serve: impl Fn((Admitted, Counted)),
) {
    while *taking || phase.borrow().serves() {
        tokio::select! {
            connection = accepted.recv(), if *taking => match connection {
                Some(Some(connection)) => {
                    rehearse("worker");
                    serve(connection);
                    // A hundred that come at once are 10 ms of work: calls get on between one and the next.
                    yield_now().await;
                }
                Some(None) | None => *taking = false,
            },
            changed = phase.changed() => {
                if changed.is_err() || !heed(*phase.borrow(), drain) {
                    return;
                }
            }
        }
    }
}

/// Does what a phase asks for; false where that is to stop at once.
fn heed(phase: Phase, drain: &Drain) -> bool {
    if !phase.serves() {
        drain.begin();
    }
    if phase == Phase::Ending {
        drain.end_calls();
    }
    phase != Phase::Stopped
}

/// Says what connections hold each time that the memory asks for it, and ends the heaviest.
async fn relieve(OfWorker { memory, guards, .. }: OfWorker) {
    let mut relief = memory.relief();
    while relief.changed().await.is_ok() {
        memory.is_held(guards.weight());
        if relief.borrow().heaviest {
            guards.end_heaviest();
        }
    }
}
