//! How one source is doing, written by its task and read by reports on any thread.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{directory::SourceStatus, trouble::Trouble};

/// The state of one source. Cloning the [`Arc`] around it shares it.
#[derive(Debug)]
pub(super) struct Status {
    name: Arc<str>,
    state: Mutex<State>,
    /// Told when a set changes.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    /// Whether it is being read now.
    up: bool,
    troubles: [u64; Trouble::ALL.len()],
    /// How old the sets were that were brought back from disk, and when that was.
    restored: Option<(Duration, Instant)>,
    problem: Option<String>,
    revision: i64,
    proved: Option<Instant>,
    unsaved: u64,
    events: u64,
    resyncs: u64,
    brakes: u64,
    rejected: u64,
}

impl Status {
    pub(super) fn new(name: Arc<str>) -> Self {
        let state = State { problem: Some("not read yet".to_owned()), ..State::default() };
        Self { name, state: Mutex::new(state), changed: Notify::const_new() }
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The source has been read, and nothing is wrong with it.
    pub(super) fn well(&self) {
        let mut state = self.state();
        (state.synced, state.up) = (true, true);
        state.problem = None;
    }

    /// Something failed; what was read before stays in use.
    pub(super) fn problem(&self, problem: &str) {
        self.state().problem = Some(problem.to_owned());
    }

    /// The source cannot be read now; what was read before stays in use.
    pub(super) fn down(&self, problem: &str) {
        self.state().up = false;
        self.problem(problem);
    }

    /// Counts trouble.
    pub(super) fn count(&self, trouble: Trouble) {
        self.state().troubles[trouble as usize] += 1;
    }

    /// What we hold was what the source held `at` this moment.
    pub(super) fn proved_at(&self, at: Instant) {
        let mut state = self.state();
        state.proved = state.proved.max(Some(at));
    }

    /// When that was last; none if what we hold comes from disk, if from anywhere.
    pub(super) fn proved(&self) -> Option<Instant> {
        self.state().proved
    }

    /// Sets have been brought back from disk that were `age` old. What was proved before was proved
    /// without them.
    pub(super) fn restored(&self, age: Duration) {
        let mut state = self.state();
        (state.restored, state.proved) = (Some((age, Instant::now())), None);
    }

    /// A set has changed.
    pub(super) fn touch(&self) {
        self.changed.notify_one();
    }

    /// Waits until a set has changed since the last return.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sets could not be saved.
    pub(super) fn count_unsaved(&self) {
        self.state().unsaved += 1;
    }

    /// Where the source stands now; a smaller revision than before is taken as it is.
    pub(super) fn revision(&self, revision: i64) {
        self.state().revision = revision;
    }

    pub(super) fn count_events(&self, events: u64) {
        self.state().events += events;
    }

    pub(super) fn count_resync(&self) {
        self.state().resyncs += 1;
    }

    pub(super) fn count_brake(&self) {
        self.state().brakes += 1;
    }

    /// The number of rejected records went from `before` to `after`.
    pub(super) fn rejected(&self, before: usize, after: usize) {
        let mut state = self.state();
        state.rejected = (state.rejected + after as u64).saturating_sub(before as u64);
    }

    pub(super) fn read(&self) -> SourceStatus {
        let state = self.state();
        SourceStatus {
            name: Arc::clone(&self.name),
            synced: state.synced,
            up: state.up,
            troubles: state.troubles,
            restored: state.restored.is_some(),
            problem: state.problem.clone(),
            revision: state.revision,
            age: match (state.proved, state.restored) {
                (Some(proved), _) => Some(proved.elapsed()),
                (None, Some((age, at))) => Some(age + at.elapsed()),
                (None, None) => None,
            },
            unsaved: state.unsaved,
            events: state.events,
            resyncs: state.resyncs,
            brakes: state.brakes,
            rejected: state.rejected,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
