//! The board as the tasks of discovery share it, and what an update of it sets off.
//!
//! Every update goes through [`Shared::update`]: what it changed is published at once, or as soon as a
//! burst allows, and the suspects that it made are handed to whoever dials them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use crate::model::{Endpoint, ServiceName};

use super::board::Board;

/// The board, and whoever publishes what had to wait.
#[derive(Debug)]
pub(super) struct Shared {
    board: Mutex<Board>,
    later: Notify,
    /// Where suspects go; none while nobody dials.
    dialler: OnceLock<mpsc::UnboundedSender<Suspect>>,
}

/// An endpoint that vanished from its registry together with most of its service. It stays until
/// [`Self::settle`] says that it does not answer, or until it has been held long enough.
#[derive(Debug)]
pub struct Suspect {
    /// Service that it belongs to.
    pub service: ServiceName,
    /// Which.
    pub endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
}

impl Suspect {
    /// Says whether it answers.
    pub fn settle(self, answers: bool) {
        let Self { service, endpoint, shared } = self;
        shared.update(|board| board.dialled(&service, &endpoint, answers));
    }
}

impl Shared {
    pub(super) fn new(board: Board) -> Self {
        let (later, dialler) = (Notify::const_new(), OnceLock::new());
        Self { board: Mutex::new(board), later, dialler }
    }

    /// From now on suspects come out here.
    pub(super) fn suspects(&self) -> mpsc::UnboundedReceiver<Suspect> {
        let (dialler, suspects) = mpsc::unbounded_channel();
        // The first one stays: dialling twice would help nobody.
        let _ = self.dialler.set(dialler);
        suspects
    }

    /// Publishes snapshots that were held back, for ever.
    pub(super) async fn publish_later(self: &Arc<Self>) {
        loop {
            let next = self.lock(|board| board.flush(Instant::now()));
            match next {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.later.notified() => {}
                },
                None => self.later.notified().await,
            }
        }
    }

    /// Updates the board, and sets off what follows from it.
    pub(super) fn update<R>(self: &Arc<Self>, update: impl FnOnce(&mut Board) -> R) -> R {
        let (result, suspects, waits) = self.lock(|board| {
            let result = update(board);
            (result, board.take_undialled(), board.flush(Instant::now()).is_some())
        });
        for (service, endpoint) in suspects {
            let suspect = Suspect { service, endpoint, shared: Arc::clone(self) };
            if let Some(dialler) = self.dialler.get() {
                let _ = dialler.send(suspect);
            }
        }
        if waits {
            self.later.notify_one();
        }
        result
    }

    /// A panic in the middle of an update leaves tables that the next list puts right.
    fn lock<R>(&self, act: impl FnOnce(&mut Board) -> R) -> R {
        act(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
