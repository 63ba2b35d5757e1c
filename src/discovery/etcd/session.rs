//! The work over one connection: lists, one watch stream, and proof that what is held is current.
//!
//! A range is listed at revision R and watched from R+1; one that was listed over an earlier connection
//! is watched from where it stopped. Any trouble with the connection ends the session with its reason;
//! trouble with one range alone (compacted away, refused) is mended here.
//!
//! Proof comes in two halves. The quorum says how far the cluster has come ([`Member::latest`]: a
//! member that is cut off or behind cannot answer that), and lists and watches say that all of it is
//! on the board. The set is then as old as the question.

mod creating;
mod lists;
mod watches;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::backoff::Backoff;
use crate::discovery::desk::{Command, Report};
use crate::discovery::table::Change;
use crate::discovery::task::Task;
use crate::discovery::trouble::{Ended, Trouble};
use crate::model::ServiceName;
use crate::registry::etcd::{EtcdError, Member, Members, Position, Watch, WatchRequest};

use super::credentials::Credentials;
use super::ranges::{Range, RangeId, Ranges, WatchState, Work};
use creating::Creating;

/// A member, and where its own store stood.
pub(super) type Connected = (Member, Position);

/// What reaches a session from outside, beside etcd.
pub(super) struct Lines<'a> {
    pub(super) commands: &'a mut mpsc::UnboundedReceiver<Command>,
    pub(super) credentials: &'a mut Credentials,
    /// For a new connection, when the credentials change.
    pub(super) members: &'a mut Members,
}

/// Works over one connection until something is wrong with it, until there is one with new credentials
/// to go on with, or until nobody gives commands any more, which is told by none.
///
/// # Errors
/// What is wrong.
pub(super) async fn run(
    task: &Task,
    ranges: &mut Ranges,
    lines: Lines<'_>,
    (member, position): Connected,
) -> Result<Option<Connected>, Ended> {
    let Lines { commands, credentials, members } = lines;
    let mut session = Session::new(task, ranges, member, position);
    session.ask();
    let renewed = renewed(task, credentials, members);
    tokio::pin!(renewed);
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
                Some(Command::Check(service)) => session.check(service),
                None => return Ok(None),
            },
            renewed = &mut renewed => return Ok(Some(renewed)),
            response = session.watch.next() => match response {
                Some(Ok(response)) => session.response(&response)?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Ended::new(Trouble::Stream, "the watch stream has ended".to_owned())),
            },
            Some(done) = session.jobs.join_next() => {
                session.done(done.map_err(|error| Ended::new(Trouble::Stream, error.to_string()))?)?;
            }
            _ = heartbeat.tick() => session.beat()?,
            () = sleep_until(silent) => session.silent()?,
        }
    }
}

/// Waits until the credentials change, and connects with the new ones. Where they are of no use, the
/// old connection is still better than none.
async fn renewed(task: &Task, credentials: &mut Credentials, members: &mut Members) -> Connected {
    loop {
        credentials.changed().await;
        let source = &task.name;
        match members.connect_any().await {
            Ok(connected) => {
                tracing::info!(%source, "credentials have changed, and work");
                return connected;
            }
            Err(error) => {
                let problem = error.to_string();
                tracing::warn!(%source, problem, "credentials have changed, and do not work: \
                    the connection made with the old ones is kept");
            }
        }
    }
}

/// Answers of the quorum remembered until all of them is on the board: enough for the usual lag, and
/// of a longer one the oldest and the newest.
const MAX_OWED: usize = 32;

struct Session<'a> {
    task: &'a Task,
    ranges: &'a mut Ranges,
    member: Member,
    /// Where the member's own store stood when it was connected.
    position: Position,
    watch: Watch,
    /// Ranges whose watch was asked for.
    creating: Creating<RangeId>,
    watching: HashMap<i64, RangeId>,
    to_list: VecDeque<RangeId>,
    lists: usize,
    /// Services of a whole prefix that are listed by themselves, and what came in meanwhile.
    checks: HashMap<ServiceName, Vec<Change>>,
    /// Whether a new login is under way.
    logging_in: bool,
    logins: Backoff,
    jobs: JoinSet<Done>,
    /// Whether the ranges have been taken up.
    begun: bool,
    /// Whether the quorum is being asked how far it has come.
    asking: bool,
    /// Whether it did not answer last time.
    unanswered: bool,
    /// How far the cluster had come, and when it was asked, where not all of that is on the board yet;
    /// the oldest first.
    owed: Vec<(i64, Instant)>,
    /// When the member last gave any sign of life.
    heard: Instant,
    /// When the watch stream last said anything.
    stream_heard: Instant,
    /// Whether the member has ever said how far the stream has come. etcd's own grpc-proxy does not.
    tells_progress: bool,
    /// How long the stream may be behind and silent before that is looked into.
    stall: Duration,
    /// When a page of a list last came in.
    page: Arc<Mutex<Instant>>,
}

/// What a job brought.
enum Done {
    /// A list, and what had been seen of the cluster before it.
    Listed(RangeId, Option<Position>, Result<lists::Found, EtcdError>),
    /// A list of one service of a whole prefix.
    Checked(ServiceName, Result<lists::Found, EtcdError>),
    /// How far the cluster has come; what had been seen of it before, and when it was asked.
    Latest(Result<Option<Position>, EtcdError>, Option<Position>, Instant),
    LoggedIn(Result<(), EtcdError>),
    /// The wait after a refusal is over.
    List(RangeId),
}

impl<'a> Session<'a> {
    fn new(task: &'a Task, ranges: &'a mut Ranges, member: Member, position: Position) -> Self {
        let (watch, now) = (member.watch(), Instant::now());
        ranges.iter_mut().for_each(|(_, range)| range.work = Work::default());
        Self {
            task,
            ranges,
            member,
            position,
            watch,
            creating: Creating::default(),
            watching: HashMap::new(),
            to_list: VecDeque::new(),
            lists: 0,
            checks: HashMap::new(),
            logging_in: false,
            logins: task.timing.backoff(),
            jobs: JoinSet::new(),
            begun: false,
            asking: false,
            unanswered: false,
            owed: Vec::new(),
            heard: now,
            stream_heard: now,
            tells_progress: false,
            stall: task.timing.stall,
            page: Arc::new(Mutex::new(now)),
        }
    }

    /// Takes up every range where it was left. `position` is the cluster's.
    fn begin(&mut self, position: Position) {
        self.begun = true;
        let task = self.task;
        tracing::info!(source = %task.name, member = self.member.endpoint(), "connected to etcd");
        match self.ranges.seen {
            Some(seen) if !position.can_follow(seen) => self.forget_history(seen, position),
            _ => self.see(position),
        }
        for id in self.ranges.ids() {
            let is_applied = self.ranges.get(id).is_some_and(|range| range.applied > 0);
            match (is_applied, self.is_held(id)) {
                (true, _) => self.create(id),
                (false, true) => self.list_soon(id),
                (false, false) => self.list(id),
            }
        }
        if !self.ranges.whole {
            task.status.well();
            task.report(Report::Up(task.slot));
        }
    }

    /// Whether anything of a range is on the board, be it that it was brought back from disk.
    fn is_held(&mut self, id: RangeId) -> bool {
        let (task, Some(range)) = (self.task, self.ranges.get_mut(id)) else { return false };
        let service = range.scope.service.as_ref();
        range.held = range.held || task.board(|board| board.holds(task.slot, service));
        range.held
    }

    /// Another cluster, or the same one as it once was: everything is read again, and the sets stay in
    /// use until that is done.
    fn forget_history(&mut self, seen: Position, now: Position) {
        let (name, member) = (&self.task.name, self.member.endpoint());
        tracing::error!(source = %name, member, ?seen, ?now,
            "etcd is another cluster or was restored from a backup, reading everything again");
        self.ranges.forget_history(now);
        self.task.status.count(Trouble::History);
        self.task.status.revision(now.revision);
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

    fn done(&mut self, done: Done) -> Result<(), Ended> {
        match done {
            Done::Listed(id, before, result) => self.listed(id, before, result),
            Done::Checked(service, result) => self.checked(&service, result),
            Done::Latest(result, before, asked) => self.latest(result, before, asked),
            Done::LoggedIn(result) => {
                self.logging_in = false;
                result?;
                self.reopen();
                Ok(())
            }
            Done::List(id) => {
                if self.ranges.get(id).is_some_and(|range| range.work.later) {
                    self.list(id);
                }
                Ok(())
            }
        }
    }

    /// Asks for proof, and lists again what has not been listed for long.
    fn beat(&mut self) -> Result<(), Ended> {
        self.stalled()?;
        self.ask();
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

    /// Looks whether the watch stream is open and does not tell what there is to tell.
    ///
    /// One that has never told how far it has come may be unable to, and have nothing else to tell.
    /// So the ranges are listed: [`Self::listed`] ends the session when that shows what the stream
    /// should have told. If not, they are current by that, and the next look can wait longer.
    fn stalled(&mut self) -> Result<(), Ended> {
        let Some(&(revision, asked)) = self.owed.first() else { return Ok(()) };
        let silent = asked.elapsed().min(self.stream_heard.elapsed());
        if silent < self.stall || self.ranges.all_watches_know(revision) {
            return Ok(());
        }
        if self.tells_progress || !self.creating.is_empty() {
            return Err(self.stall());
        }
        self.stall = (2 * self.stall).min(self.task.timing.relist);
        self.watch.request(WatchRequest::Progress);
        for id in self.ranges.ids() {
            let Some(range) = self.ranges.get_mut(id) else { continue };
            if range.known < revision && matches!(range.work.watch, WatchState::On { .. }) {
                range.work.doubted = true;
                self.list_soon(id);
            }
        }
        Ok(())
    }

    fn stall(&self) -> Ended {
        let (member, stall) = (self.member.endpoint(), self.task.timing.stall);
        let problem = format!("{member}: the watch stream is behind and silent for {stall:?}");
        Ended::new(Trouble::Stall, problem)
    }

    /// Whether it is of no use to ask how far the stream has come.
    fn is_mute(&self) -> bool {
        !self.tells_progress && self.stall > self.task.timing.stall
    }

    /// Asks the quorum how far the cluster has come.
    fn ask(&mut self) {
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        let (member, before, now) = (self.member.clone(), self.ranges.seen, Instant::now());
        let key = self.ranges.readable_key();
        self.jobs.spawn(async move { Done::Latest(member.latest(&key).await, before, now) });
    }

    fn latest(
        &mut self,
        result: Result<Option<Position>, EtcdError>,
        before: Option<Position>,
        asked: Instant,
    ) -> Result<(), Ended> {
        self.asking = false;
        let latest = match result {
            Ok(latest) => latest,
            // It may be slow with this one question; a member that is cut off is slow with all.
            Err(_) if self.heard > asked && !std::mem::replace(&mut self.unanswered, true) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.heard = Instant::now();
        self.unanswered = false;
        match (before, latest) {
            _ if !self.begun => self.begin(latest.unwrap_or(self.position)),
            (Some(before), Some(now)) if !now.can_follow(before) => {
                let problem = format!("{}: has gone back in time", self.member.endpoint());
                return Err(Ended::new(Trouble::Stream, problem));
            }
            _ => {}
        }
        let Some(position) = latest else {
            // Nothing may be read, which proves as much where nothing is held.
            if self.ranges.all_known(i64::MAX) {
                self.task.status.proved_at(asked);
            }
            return Ok(());
        };
        self.see(position);
        if self.owed.len() == MAX_OWED {
            self.owed.pop();
        }
        self.owed.push((position.revision, asked));
        self.settle();
        if !self.owed.is_empty() && !self.is_mute() {
            self.watch.request(WatchRequest::Progress);
        }
        Ok(())
    }

    /// Looks for what was owed and is on the board now: that is as current as the question was.
    fn settle(&mut self) {
        let ranges = &*self.ranges;
        let settled = self.owed.iter().take_while(|(revision, _)| ranges.all_known(*revision));
        let settled = settled.count();
        if let Some((_, asked)) = self.owed.drain(..settled).next_back() {
            self.task.status.proved_at(asked);
        }
    }

    fn silent(&mut self) -> Result<(), Ended> {
        let page = *self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if page > self.heard {
            self.heard = page;
            return Ok(());
        }
        let (member, silence) = (self.member.endpoint(), self.task.timing.silence);
        let problem = format!("{member}: nothing heard for {silence:?}");
        Err(Ended::new(Trouble::Silence, problem))
    }

    fn see(&mut self, position: Position) {
        self.ranges.see(position);
        if let Some(seen) = self.ranges.seen {
            self.task.status.revision(seen.revision);
        }
    }
}
