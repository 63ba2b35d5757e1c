//! The work over one connection: lists, one watch stream, and proof that the member is alive.
//!
//! A range is listed at revision R and watched from R+1; one that was listed over an earlier connection
//! is watched from where it stopped. Any trouble with the connection ends the session with its reason;
//! trouble with one range alone (compacted away, refused) is mended here.

mod lists;
mod watches;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::discovery::backoff::Backoff;
use crate::discovery::desk::{Command, Report};
use crate::discovery::task::Task;
use crate::model::ServiceName;
use crate::registry::etcd::{EtcdError, Member, Position, Watch, WatchRequest};

use super::ranges::{Range, RangeId, Ranges, WatchState, Work};

/// Works over `member` until something is wrong with it.
///
/// # Errors
/// What is wrong. It ends well only when `commands` closes.
pub(super) async fn run(
    task: &Task,
    ranges: &mut Ranges,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    member: Member,
    position: Position,
) -> Result<(), String> {
    let mut session = Session::new(task, ranges, member);
    session.start(position);
    let beat = task.timing.heartbeat;
    let mut heartbeat = interval_at(Instant::now() + beat, beat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        session.start_lists();
        let silent = session.heard + task.timing.silence;
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Want(service)) => session.want(service),
                Some(Command::Forget(service)) => session.forget(&service),
                None => return Ok(()),
            },
            response = session.watch.next() => match response {
                Some(Ok(response)) => session.response(&response)?,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the watch stream has ended".to_owned()),
            },
            Some(done) = session.jobs.join_next() => {
                session.done(done.map_err(|error| error.to_string())?)?;
            }
            _ = heartbeat.tick() => session.beat()?,
            () = sleep_until(silent) => session.silent()?,
        }
    }
}

struct Session<'a> {
    task: &'a Task,
    ranges: &'a mut Ranges,
    member: Member,
    watch: Watch,
    /// Ranges whose watch was asked for, in that order: etcd answers in it.
    creating: VecDeque<RangeId>,
    watching: HashMap<i64, RangeId>,
    to_list: VecDeque<RangeId>,
    lists: usize,
    /// Whether a new login is under way.
    logging_in: bool,
    logins: Backoff,
    jobs: JoinSet<Done>,
    /// Whether the member was asked where it stands.
    asking: bool,
    /// When the member last gave any sign of life.
    heard: Instant,
    /// Whether neither the stream nor a list has said anything since the last beat.
    quiet: bool,
    /// When a page of a list last came in.
    page: Arc<Mutex<Instant>>,
    /// When the member last proved that the board is up to date.
    proved: Instant,
}

/// What a job brought.
enum Done {
    /// A list, and what had been seen of the cluster before it.
    Listed(RangeId, Option<Position>, Result<lists::Found, EtcdError>),
    /// Where the member stands, what had been seen of the cluster before, and when that was.
    Position(Result<Position, EtcdError>, Option<Position>, Instant),
    LoggedIn(Result<(), EtcdError>),
    /// The wait after a refusal is over.
    List(RangeId),
}

impl<'a> Session<'a> {
    fn new(task: &'a Task, ranges: &'a mut Ranges, member: Member) -> Self {
        let (watch, now) = (member.watch(), Instant::now());
        Self {
            task,
            ranges,
            member,
            watch,
            creating: VecDeque::new(),
            watching: HashMap::new(),
            to_list: VecDeque::new(),
            lists: 0,
            logging_in: false,
            logins: Backoff::new(&task.timing),
            jobs: JoinSet::new(),
            asking: false,
            heard: now,
            quiet: false,
            page: Arc::new(Mutex::new(now)),
            proved: now,
        }
    }

    /// Takes up every range where it was left.
    fn start(&mut self, position: Position) {
        let task = self.task;
        tracing::info!(source = %task.name, member = self.member.endpoint(), "connected to etcd");
        let doubt = self.ranges.seen.is_some_and(|seen| !position.can_follow(seen));
        if doubt && self.ranges.is_empty() {
            self.ranges.forget_history(position);
        } else if doubt {
            // A member that lags behind, or another history: lists will tell.
            let seen = self.ranges.seen;
            tracing::warn!(source = %task.name, ?seen, now = ?position, "etcd is behind what was seen of it");
        } else {
            self.see(position);
        }
        for id in self.ranges.ids() {
            let Some(range) = self.ranges.get_mut(id) else { continue };
            range.work = Work::default();
            if range.applied > 0 && !doubt {
                self.create(id);
            } else {
                self.list(id);
            }
        }
        if !self.ranges.whole {
            task.status.well();
            task.report(Report::Up(task.slot));
            if !doubt && self.ranges.all_known(position.revision) {
                self.prove();
            }
        }
    }

    fn want(&mut self, service: ServiceName) {
        match self.ranges.add(&service) {
            Some(id) => {
                let range = self.ranges.get_mut(id);
                if range.is_some_and(|range| !std::mem::replace(&mut range.work.listing, true)) {
                    // Somebody waits for it, unlike for the others.
                    self.to_list.push_front(id);
                }
            }
            // The format cannot spell it, so nobody can have written it.
            None => self.task.report(Report::Listed(self.task.slot, service)),
        }
    }

    fn forget(&mut self, service: &ServiceName) {
        let Some(range) = self.ranges.remove(service) else { return };
        if let WatchState::On { id, .. } = range.work.watch {
            self.watching.remove(&id);
            self.watch.request(WatchRequest::Cancel(id));
        }
    }

    fn done(&mut self, done: Done) -> Result<(), String> {
        match done {
            Done::Listed(id, before, result) => self.listed(id, before, result),
            Done::Position(result, before, asked) => self.position(result, before, asked),
            Done::LoggedIn(result) => {
                self.logging_in = false;
                result.map_err(|error| error.to_string())?;
                self.reopen();
                Ok(())
            }
            Done::List(id) => {
                self.list(id);
                Ok(())
            }
        }
    }

    /// Asks for signs of life, and lists again what has not been listed for long.
    fn beat(&mut self) -> Result<(), String> {
        let task = self.task;
        if !self.watching.is_empty() && self.proved.elapsed() >= task.timing.stall {
            let (member, stall) = (self.member.endpoint(), task.timing.stall);
            return Err(format!("{member}: the watch stream has been behind for {stall:?}"));
        }
        // An answer to this proves most. Newer members do not give it while nothing is written.
        self.watch.request(WatchRequest::Progress);
        if self.quiet || self.watching.is_empty() {
            self.ask_position();
        }
        self.quiet = true;
        let now = Instant::now();
        let due = |range: &Range| {
            range.work.watch != WatchState::None && range.relist.is_some_and(|at| at <= now)
        };
        for id in self.ranges.ids() {
            if self.ranges.get(id).is_some_and(due) {
                self.list(id);
            }
        }
        Ok(())
    }

    fn ask_position(&mut self) {
        if self.asking {
            return;
        }
        self.asking = true;
        let (member, before, now) = (self.member.clone(), self.ranges.seen, Instant::now());
        self.jobs.spawn(async move { Done::Position(member.position().await, before, now) });
    }

    fn position(
        &mut self,
        result: Result<Position, EtcdError>,
        before: Option<Position>,
        asked: Instant,
    ) -> Result<(), String> {
        self.asking = false;
        let position = match result {
            Ok(position) => position,
            // It may be slow with this one question.
            Err(_) if self.heard > asked => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        self.heard = Instant::now();
        if before.is_some_and(|before| !position.can_follow(before)) {
            return Err(format!("{}: has gone back in time", self.member.endpoint()));
        }
        if self.ranges.all_known(position.revision) {
            self.prove();
        } else {
            self.watch.request(WatchRequest::Progress);
        }
        self.see(position);
        Ok(())
    }

    fn silent(&mut self) -> Result<(), String> {
        let page = *self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if page > self.heard {
            self.heard = page;
            return Ok(());
        }
        let (member, silence) = (self.member.endpoint(), self.task.timing.silence);
        Err(format!("{member}: nothing heard for {silence:?}"))
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.quiet = false;
    }

    fn prove(&mut self) {
        self.proved = Instant::now();
        self.task.status.proved();
    }

    fn see(&mut self, position: Position) {
        self.ranges.see(position);
        if let Some(seen) = self.ranges.seen {
            self.task.status.revision(seen.revision);
        }
    }
}
