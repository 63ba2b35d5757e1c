//! Answers "which service is that?", and decides which services the lazy sources keep up to date.
//!
//! [`super::Directory::resolve`] brings questions, the source tasks bring reports. A question is
//! answered once every source has spoken or is known to be out of reach; concurrent ones about one
//! name share that. A name stays wanted while the service is called, or for a short while when no
//! source knows it, so that it is known the moment it appears. Nothing here waits or does I/O.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::model::ServiceName;

use super::{
    Timing,
    board::Slot,
    directory::{Answer, Ask, Directory, Question, ResolveError},
    doubts::Doubts,
    shared::Shared,
    state::Saved,
    timing::{MAX_ABSENT, MAX_REMEMBERED, MAX_SERVICES, MAX_UNANSWERED},
};

/// What a lazy source is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Keep this service up to date, and report once it has been listed.
    Want(ServiceName),
    /// Nobody needs it any more.
    Forget(ServiceName),
    /// List this service now: what was told of it may not be all.
    Check(ServiceName),
}

/// What a source, or whoever runs the sources, tells the desk.
#[derive(Debug)]
pub(super) enum Report {
    /// These are the sources now, in the order of the configuration.
    Peers(Vec<Peer>),
    /// A lazy source has (re)started and takes commands here; it remembers nothing.
    Started(Slot, mpsc::UnboundedSender<Command>),
    /// The source can be asked; one that is not lazy has read everything.
    Up(Slot),
    /// The source cannot be asked.
    Down(Slot, String),
    /// What the source holds of a service is on the board.
    Listed(Slot, ServiceName),
    /// The source will not say anything of this service.
    Refused(Slot, ServiceName, String),
    /// What an earlier process has saved of the source.
    Saved(Slot, Saved),
    /// The source should have been read by now.
    Late(Slot),
}

/// A source as the desk knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) slot: Slot,
    pub(super) name: Arc<str>,
    pub(super) lazy: bool,
    pub(super) reach: Reach,
    /// What an earlier process has saved of it, until it is used or not needed any more.
    pub(super) saved: Option<Saved>,
    /// Whether that has been used.
    pub(super) restored: bool,
    pub(super) commands: Option<mpsc::UnboundedSender<Command>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing heard yet.
    Unknown,
    Up,
    Down(String),
}

#[derive(Debug)]
pub(super) struct Desk {
    directory: Directory,
    shared: Arc<Shared>,
    timing: Timing,
    peers: Vec<Peer>,
    interests: HashMap<ServiceName, Interest>,
    /// Names among the interests that no source knows, as of the last look.
    unseen: HashSet<ServiceName>,
    /// Absent names that are not watched.
    remembered: HashMap<ServiceName, Instant>,
    doubts: Doubts,
}

/// A name that lazy sources were asked for.
#[derive(Debug)]
struct Interest {
    asked: Instant,
    /// When its count of calls was last seen to move.
    active: Instant,
    calls: u64,
    listed: Vec<Slot>,
    refused: Vec<(Slot, String)>,
    waiting: Vec<oneshot::Sender<Answer>>,
}

impl Desk {
    pub(super) fn new(directory: Directory, shared: Arc<Shared>, timing: Timing) -> Self {
        Self {
            directory,
            shared,
            doubts: Doubts::new(timing.recheck),
            timing,
            peers: Vec::new(),
            interests: HashMap::new(),
            unseen: HashSet::new(),
            remembered: HashMap::new(),
        }
    }

    /// Works until nobody can ask or report any more.
    pub(super) async fn run(
        &mut self,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        reports: &mut mpsc::UnboundedReceiver<Report>,
    ) {
        let mut sweep = interval(self.timing.sweep);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Reports first: they hold the answers.
                biased;
                report = reports.recv() => match report {
                    Some(report) => self.report(report, Instant::now()),
                    None => return,
                },
                ask = asks.recv() => match ask {
                    Some(Ask::Question(question)) => self.ask(question, Instant::now()),
                    Some(Ask::Doubt(name)) => self.doubt(&name, Instant::now()),
                    None => return,
                },
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn ask(&mut self, question: Question, now: Instant) {
        let Question { name, reply } = question;
        let remembered = self.remembered.get(&name).is_some_and(|until| now < *until);
        if remembered && self.directory.find(&name).is_none() {
            let _ = reply.send(Err(ResolveError::Absent(name)));
            return;
        }
        if !self.interests.contains_key(&name) {
            if self.unseen.len() >= MAX_UNANSWERED {
                let reason = "too many unknown services are being asked for".to_owned();
                let _ = reply.send(Err(ResolveError::Unavailable { service: name, reason }));
                return;
            }
            self.want(&name, now);
        }
        if let Some(interest) = self.interests.get_mut(&name) {
            interest.asked = now;
            interest.waiting.push(reply);
        }
        self.answer(&name, now);
    }

    /// Has a service listed again whose endpoints cannot be connected, unless that was done lately.
    fn doubt(&mut self, name: &ServiceName, now: Instant) {
        if self.directory.find(name).is_some() && self.doubts.may_check(name, now) {
            tracing::info!(service = %name, "endpoints cannot be connected, asking the sources again");
            for peer in self.peers.iter().filter_map(|peer| peer.commands.as_ref()) {
                let _ = peer.send(Command::Check(name.clone()));
            }
        }
        self.shared.update(|board| board.doubt(name));
    }

    fn report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Peers(peers) => self.take_peers(peers, now),
            Report::Started(slot, commands) => {
                let Some(peer) = self.peers.iter_mut().find(|peer| peer.slot == slot) else {
                    return;
                };
                for name in self.interests.keys().filter(|_| peer.lazy) {
                    let _ = commands.send(Command::Want(name.clone()));
                }
                peer.commands = Some(commands);
            }
            Report::Up(slot) => self.reach(slot, Reach::Up, now),
            Report::Down(slot, reason) => {
                self.restore(slot, now);
                self.reach(slot, Reach::Down(reason), now);
            }
            Report::Saved(slot, saved) => self.take_saved(slot, saved, now),
            Report::Late(slot) => self.restore(slot, now),
            Report::Listed(slot, name) => {
                let Some(interest) = self.interests.get_mut(&name) else { return };
                interest.refused.retain(|(by, _)| *by != slot);
                if !interest.listed.contains(&slot) {
                    interest.listed.push(slot);
                }
                self.answer(&name, now);
            }
            Report::Refused(slot, name, reason) => {
                let Some(interest) = self.interests.get_mut(&name) else { return };
                interest.refused.retain(|(by, _)| *by != slot);
                interest.refused.push((slot, reason));
                self.answer(&name, now);
            }
        }
    }

    fn take_peers(&mut self, mut peers: Vec<Peer>, now: Instant) {
        for peer in &mut peers {
            if let Some(old) = self.peers.iter_mut().find(|old| old.slot == peer.slot) {
                peer.reach = old.reach.clone();
                peer.commands = old.commands.take();
                (peer.saved, peer.restored) = (old.saved.take(), old.restored);
            }
        }
        self.peers = peers;
        // Services that were in use before any source was lazy.
        for name in self.directory.asked() {
            if !self.interests.contains_key(&name) {
                self.want(&name, now);
            }
        }
        self.answer_all(now);
    }

    fn reach(&mut self, slot: Slot, reach: Reach, now: Instant) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.slot == slot) else { return };
        if peer.reach != reach {
            peer.reach = reach;
            self.answer_all(now);
        }
    }

    /// The services that were in use are wanted again. What is known of them waits: an etcd that
    /// answers knows better.
    fn take_saved(&mut self, slot: Slot, saved: Saved, now: Instant) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.slot == slot) else { return };
        let names = saved.services.iter().map(|(name, _)| name.clone());
        let names: Vec<_> = names.filter(|_| peer.lazy).take(MAX_SERVICES).collect();
        let down = matches!(peer.reach, Reach::Down(_));
        peer.saved = Some(saved);
        for name in names {
            if !self.interests.contains_key(&name) {
                self.want(&name, now);
            }
        }
        if down {
            self.restore(slot, now);
        }
    }

    /// Brings back what was saved of a source that cannot be asked, of services that it has not told.
    fn restore(&mut self, slot: Slot, now: Instant) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.slot == slot) else { return };
        let Some(Saved { age, services }) = peer.saved.take() else { return };
        let (restored, status) =
            self.shared.update(|board| (board.restore(slot, services), board.status(slot)));
        let Some(status) = status else { return };
        if status.read().synced && restored.is_empty() {
            return;
        }
        peer.restored = true;
        status.restored(age);
        tracing::warn!(source = %peer.name, services = restored.len(), ?age,
            "not read yet: what was known before the start is served");
        for name in &restored {
            self.directory.mark_asked(name);
        }
        self.answer_all(now);
    }

    fn want(&mut self, name: &ServiceName, now: Instant) {
        self.tell_lazy(&Command::Want(name.clone()));
        self.unseen.insert(name.clone());
        let (listed, refused, waiting) = (Vec::new(), Vec::new(), Vec::new());
        let interest = Interest { asked: now, active: now, calls: 0, listed, refused, waiting };
        self.interests.insert(name.clone(), interest);
    }

    fn tell_lazy(&self, command: &Command) {
        for peer in self.peers.iter().filter(|peer| peer.lazy) {
            if let Some(commands) = &peer.commands {
                let _ = commands.send(command.clone());
            }
        }
    }

    fn forget(&mut self, name: &ServiceName) {
        self.tell_lazy(&Command::Forget(name.clone()));
        self.interests.remove(name);
        self.unseen.remove(name);
        self.directory.unmark_asked(name);
        self.shared.update(|board| board.drop_service(name));
    }

    fn answer_all(&mut self, now: Instant) {
        let waiting = self.interests.iter().filter(|(_, interest)| !interest.waiting.is_empty());
        for name in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.answer(&name, now);
        }
    }

    /// Answers those who wait for `name`, if the sources have said enough.
    fn answer(&mut self, name: &ServiceName, now: Instant) {
        let Some(answer) = self.conclude(name) else { return };
        // Before anyone hears the answer, so that whoever has heard it finds the service.
        self.directory.mark_asked(name);
        let Some(interest) = self.interests.get_mut(name) else { return };
        for reply in std::mem::take(&mut interest.waiting) {
            // Who asked may have gone.
            let _ = reply.send(answer.clone());
        }
        match answer {
            Ok(_) => {
                self.unseen.remove(name);
                if self.interests.len() - self.unseen.len() > MAX_SERVICES {
                    self.forget_idlest(name);
                }
            }
            Err(error) if self.unseen.len() > MAX_ABSENT => {
                self.forget(name);
                if matches!(error, ResolveError::Absent(_))
                    && self.remembered.len() < MAX_REMEMBERED
                {
                    self.remembered.insert(name.clone(), now + self.timing.remember);
                }
            }
            Err(_) => {}
        }
    }

    /// What the sources say of `name`; none while one of them may still say something.
    fn conclude(&self, name: &ServiceName) -> Option<Answer> {
        let interest = self.interests.get(name)?;
        let found = self.directory.find(name);
        let mut silent = None;
        for peer in self.peers.iter().filter(|peer| !(peer.restored && found.is_some())) {
            let refused = interest.refused.iter().find(|(slot, _)| *slot == peer.slot);
            let reason = match (&peer.reach, refused) {
                (Reach::Down(reason), _) | (Reach::Up, Some((_, reason))) => reason,
                (Reach::Unknown, _) => return None,
                (Reach::Up, None) if !peer.lazy || interest.listed.contains(&peer.slot) => continue,
                (Reach::Up, None) => return None,
            };
            silent.get_or_insert_with(|| format!("source {}: {reason}", peer.name));
        }
        Some(match (found, silent) {
            (Some(service), _) => Ok(service),
            (None, None) => Err(ResolveError::Absent(name.clone())),
            (None, Some(reason)) => {
                Err(ResolveError::Unavailable { service: name.clone(), reason })
            }
        })
    }

    fn forget_idlest(&mut self, but: &ServiceName) {
        let seen = self.interests.iter().filter(|(name, _)| !self.unseen.contains(*name));
        let others = seen.filter(|(name, _)| *name != but);
        let idlest = others.min_by_key(|(_, interest)| interest.active.max(interest.asked));
        if let Some(name) = idlest.map(|(name, _)| name.clone()) {
            self.forget(&name);
        }
    }

    /// Lets go of services that nobody calls, and of absent ones that nobody asks for.
    fn sweep(&mut self, now: Instant) {
        self.remembered.retain(|_, until| now < *until);
        self.doubts.sweep(now);
        let mut gone = Vec::new();
        for (name, interest) in &mut self.interests {
            interest.waiting.retain(|reply| !reply.is_closed());
            let limit = match self.directory.find(name) {
                Some(service) => {
                    self.unseen.remove(name);
                    if std::mem::replace(&mut interest.calls, service.calls()) != interest.calls {
                        interest.active = now;
                    }
                    self.timing.idle
                }
                None => {
                    self.unseen.insert(name.clone());
                    self.timing.absent
                }
            };
            let last = interest.active.max(interest.asked);
            if interest.waiting.is_empty() && now - last >= limit {
                gone.push(name.clone());
            }
        }
        for name in gone {
            self.forget(&name);
        }
        self.shared.update(|board| board.sweep(now, self.timing.idle));
    }
}

#[cfg(test)]
mod tests;
