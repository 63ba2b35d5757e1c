//! What every source task needs, and how its panics are survived.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    config::{Source, SourceKind},
    panics::{self, Caught, Panicked, again, rehearse},
};

use super::{
    Timing,
    board::{Board, Slot},
    desk::{Command, Report},
    etcd, file,
    shared::Shared,
    state::{self, Store},
    status::Status,
};

/// Wait before a source that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// One source at work.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) name: Arc<str>,
    pub(super) slot: Slot,
    pub(super) status: Arc<Status>,
    pub(super) timing: Timing,
    pub(super) shared: Arc<Shared>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

impl Task {
    /// Updates the board: [`Shared::update`].
    pub(super) fn board<R>(&self, update: impl FnOnce(&mut Board) -> R) -> R {
        self.shared.update(|board| {
            rehearse("discovery");
            update(board)
        })
    }

    /// Tells the desk, which outlives every source.
    pub(super) fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    /// Runs the source until this future is dropped, and keeps what it brings in `store`.
    pub(super) async fn run(self, source: Source, store: Option<Store>) {
        let keeper = self.clone();
        let keep = async {
            match store {
                Some(store) => {
                    again(panics::Task::Discovery, || state::keep(&keeper, store.clone())).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.work(source) => {}
            () = keep => {}
        }
    }

    async fn work(self, source: Source) {
        self.survive(|task, commands| {
            let kind = source.kind.clone();
            async move {
                match kind {
                    SourceKind::Etcd(source) => etcd::run(&task, source, commands).await,
                    SourceKind::File(source) => file::run(&task, &source).await,
                }
            }
        })
        .await;
    }

    /// Runs `work`, and starts it again when it panics. Its endpoints stay on the board meanwhile.
    async fn survive<W>(self, work: impl Fn(Self, mpsc::UnboundedReceiver<Command>) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        loop {
            let (commands, queue) = mpsc::unbounded_channel();
            self.report(Report::Started(self.slot, commands));
            // A set of one, because a set ends its tasks when it is dropped.
            let mut running = JoinSet::new();
            running.spawn(Caught::new(panics::Task::Discovery, work(self.clone(), queue)));
            match running.join_next().await {
                Some(Ok(Err(Panicked)) | Err(_)) => {
                    tracing::warn!(source = %self.name, "ended by a panic, starting it again");
                    self.status.down("ended by a panic, starting again");
                }
                // It ends only when nobody can give it commands any more.
                _ => return,
            }
            sleep(AFTER_PANIC).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::time::Instant;

    use crate::discovery::Directory;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_panics_is_started_again_and_told_what_is_wanted() {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let board = Board::new(Directory::default(), Duration::ZERO);
        let name: Arc<str> = "main".into();
        let task = Task {
            name: Arc::clone(&name),
            slot: Slot(7),
            status: Arc::new(Status::new(name)),
            timing: Timing::default(),
            shared: Arc::new(Shared::new(board)),
            reports,
        };
        let (runs, status) = (AtomicUsize::new(0), Arc::clone(&task.status));
        task.survive(|task, _| {
            let run = runs.fetch_add(1, Relaxed);
            async move {
                if run == 0 {
                    task.board(|_| panic!("in the middle of an update"));
                }
                task.board(|board| board.flush(Instant::now()));
            }
        })
        .await;
        assert_eq!(runs.into_inner(), 2);
        assert!(status.read().problem.unwrap().contains("panic"));
        for _ in 0..2 {
            assert!(matches!(reported.recv().await, Some(Report::Started(Slot(7), _))));
        }
    }
}
