//! Failed and slow calls of late, each with its whole decision.
//!
//! A worker that sees such a call end puts it into words and hands it to the control thread, which
//! keeps the last ones and passes them on to whoever follows. Calls never wait for that, and neither
//! memory nor work grows with their number: the words of a call have a bound, a kind of call that
//! comes often is sampled, and what is kept has a fixed size. [`Recorder`] is the worker's side,
//! [`Recent`] that of the control thread.

mod entry;
mod filter;
mod follow;
mod record;
mod ring;

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::spawn_local,
    time::timeout,
};

use crate::panics::{Task, go_on};

pub use entry::Entry;
pub use filter::{Filter, FilterError};
pub use follow::{Follower, Line};
pub use record::Recorder;

use follow::Followed;
use ring::Ring;

/// Calls that may be on their way from the workers.
const ON_THE_WAY: usize = 256;
/// How long the end of the process waits for followers to take the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Where workers hand calls over. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Intake {
    to: Sender<Entry>,
    left_out: Arc<AtomicU64>,
}

/// What is kept, on the control thread. Cloning shares it.
#[derive(Clone)]
pub struct Recent(Rc<RefCell<State>>);

struct State {
    from: Receiver<Entry>,
    left_out: Arc<AtomicU64>,
    ring: Ring,
    followed: Followed,
}

/// What was asked for.
#[derive(Debug)]
pub struct Listed {
    /// The last ones that match, the newest one last.
    pub calls: Vec<Rc<Entry>>,
    /// How many match.
    pub matching: usize,
    /// How many are kept.
    pub kept: usize,
    /// Failed and slow calls that were not recorded, since the start of the process: more of one kind
    /// than anyone would read.
    pub left_out: u64,
}

impl Recent {
    /// Most calls that are kept.
    pub const MOST_KEPT: usize = ring::MOST_CALLS;

    /// Begins to take calls in; to be called on the control thread.
    pub fn start() -> (Self, Intake) {
        let (to, from) = channel(ON_THE_WAY);
        let left_out = Arc::<AtomicU64>::default();
        let intake = Intake { to, left_out: Arc::clone(&left_out) };
        let state = State { from, left_out, ring: Ring::default(), followed: Followed::default() };
        let recent = Self(Rc::new(RefCell::new(state)));
        let taking = recent.clone();
        spawn_local(go_on(Task::Other, async move || {
            poll_fn(|cx| taking.0.borrow_mut().poll(cx)).await;
        }));
        (recent, intake)
    }

    /// The last `limit` calls that `filter` lets through.
    pub fn list(&self, filter: &Filter, limit: usize) -> Listed {
        let state = &mut *self.0.borrow_mut();
        state.take_in();
        let mut calls: Vec<_> = state.ring.newest_first().filter(|e| filter.matches(e)).collect();
        let matching = calls.len();
        calls.truncate(limit);
        calls.reverse();
        let calls = calls.into_iter().map(Rc::clone).collect();
        let left_out = state.left_out.load(Relaxed);
        Listed { calls, matching, kept: state.ring.len(), left_out }
    }

    /// The last `limit` calls that `filter` lets through, and then each one as it ends.
    ///
    /// # Errors
    /// As many follow as may; the number.
    pub fn follow(&self, filter: Filter, limit: usize) -> Result<Follower, usize> {
        let listed = self.list(&filter, limit).calls;
        self.0.borrow_mut().followed.add(filter, listed)
    }

    /// Ends what is followed, when all calls have ended; waits for a moment until the last lines have
    /// been taken.
    pub async fn end(&self) {
        let mut gone = {
            let state = &mut *self.0.borrow_mut();
            state.take_in();
            state.followed.end()
        };
        // Whoever does not read must not hold the end of the process up.
        let _ = timeout(LAST_LINES, gone.recv()).await;
    }
}

impl State {
    /// Takes calls in as they come; ends with the last worker.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(entry) = std::task::ready!(self.from.poll_recv(cx)) {
            self.keep(entry);
        }
        Poll::Ready(())
    }

    fn take_in(&mut self) {
        while let Ok(entry) = self.from.try_recv() {
            self.keep(entry);
        }
    }

    fn keep(&mut self, entry: Entry) {
        let entry = Rc::new(entry);
        self.followed.tell(&entry);
        self.ring.push(entry);
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}
