//! Endpoints that vanish from a registry in numbers: held back until they have been dialled.
//!
//! What takes most of a service away at once is more often a registry in trouble (leases that ran out
//! while it stood still, a folder deleted by mistake) than as many instances that stopped within ten
//! seconds. The [`super::board`] shows each loss to the [`Held`] of its service, which decides what
//! may go. What it holds is a suspect until it is dialled, comes back, or has been held long enough.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::model::{Address, Endpoint, Load};

use super::{
    board::Slot,
    timing::{BRAKE_LEAST, BRAKE_WINDOW},
};

/// When a source's endpoints are held, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Brake {
    /// More than this part of a service, in percent, must have vanished; none for never.
    pub(super) share: Option<u8>,
    /// How long a suspect that answers is kept.
    pub(super) hold: Duration,
}

/// What vanished of one service lately, and what of that is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Let go within the last [`BRAKE_WINDOW`].
    lately: Vec<(Instant, Arc<Endpoint>)>,
    suspects: HashMap<Address, Suspect>,
    /// Suspects that did not answer, since the last that was made.
    silent: usize,
}

#[derive(Debug)]
struct Suspect {
    endpoint: Arc<Endpoint>,
    slot: Slot,
    since: Instant,
    until: Instant,
    dial: Dial,
}

/// Whether somebody is finding out if a suspect answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Wanted,
    UnderWay,
    Done,
}

/// How the suspects of a service stand once all of them have been dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) answer: usize,
    pub(super) silent: usize,
}

impl Held {
    /// Whether there are suspects.
    pub(super) fn is_braked(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.suspects.len()
    }

    /// Whether this address is one.
    pub(super) fn holds(&self, address: &Address) -> bool {
        self.suspects.contains_key(address)
    }

    /// A source knows the address. Says whether it was a suspect.
    pub(super) fn trust(&mut self, address: &Address) -> bool {
        self.lately.retain(|(_, endpoint)| endpoint.record.address != *address);
        let suspect = self.suspects.remove(address);
        suspect.map(|suspect| suspect.endpoint.load.trust()).is_some()
    }

    /// Endpoints have vanished from `slot`, out of `known` of the service, suspects included. Where
    /// that is too many at once, all that vanished lately becomes suspect, and those of them that are
    /// to be put back are returned; none where they may go.
    pub(super) fn vanish(
        &mut self,
        gone: Vec<Arc<Endpoint>>,
        known: usize,
        slot: Slot,
        brake: Brake,
        now: Instant,
    ) -> Option<Vec<Arc<Endpoint>>> {
        let is_late = |since: Instant| now - since >= BRAKE_WINDOW;
        self.lately.retain(|(since, _)| !is_late(*since));
        let held = self.suspects.values().filter(|suspect| !is_late(suspect.since)).count();
        let lost = self.lately.len() + held + gone.len();
        let known = known + self.lately.len();
        let too_many = |share| lost >= BRAKE_LEAST && lost * 100 > known * usize::from(share);
        if !brake.share.is_some_and(too_many) {
            self.lately.extend(gone.into_iter().map(|endpoint| (now, endpoint)));
            return None;
        }
        self.silent = 0;
        let back: Vec<_> = mem::take(&mut self.lately).into_iter().map(|(_, back)| back).collect();
        for endpoint in gone.into_iter().chain(back.iter().cloned()) {
            endpoint.load.suspect();
            let (since, until, dial) = (now, now + brake.hold, Dial::Wanted);
            let address = endpoint.record.address.clone();
            self.suspects.insert(address, Suspect { endpoint, slot, since, until, dial });
        }
        Some(back)
    }

    /// Wants suspects dialled again that answered and then could not be connected. Says whether there
    /// are any.
    pub(super) fn doubt(&mut self) -> bool {
        let mut any = false;
        for suspect in self.suspects.values_mut() {
            if suspect.dial == Dial::Done && suspect.endpoint.load.is_doubtful() {
                (suspect.dial, any) = (Dial::Wanted, true);
            }
        }
        any
    }

    /// The suspects that are to be dialled; each is returned once.
    pub(super) fn take_undialled(&mut self) -> impl Iterator<Item = Arc<Endpoint>> {
        let wanted = self.suspects.values_mut().filter(|suspect| suspect.dial == Dial::Wanted);
        wanted.map(|suspect| {
            suspect.dial = Dial::UnderWay;
            Arc::clone(&suspect.endpoint)
        })
    }

    /// What the dial found. True if the suspect is to go: it does not answer.
    pub(super) fn dialled(&mut self, address: &Address, load: &Arc<Load>, answers: bool) -> bool {
        let Some(suspect) = self.suspects.get_mut(address) else { return false };
        // It may have come back and vanished again.
        if !Arc::ptr_eq(&suspect.endpoint.load, load) || suspect.dial != Dial::UnderWay {
            return false;
        }
        suspect.dial = Dial::Done;
        if answers {
            load.vouch();
        } else {
            self.suspects.remove(address);
            self.silent += 1;
        }
        !answers
    }

    /// How the suspects stand; none while some are being dialled.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let done = self.suspects.values().all(|suspect| suspect.dial == Dial::Done);
        done.then_some(Outcome { answer: self.suspects.len(), silent: self.silent })
    }

    /// Lets suspects go that have been held long enough, and says when the next will have been.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<Address>, Option<Instant>) {
        let over = self.take(|suspect| suspect.until <= now);
        (over, self.suspects.values().map(|suspect| suspect.until).min())
    }

    /// Lets the suspects of a source go.
    pub(super) fn release(&mut self, slot: Slot) -> Vec<Address> {
        self.take(|suspect| suspect.slot == slot)
    }

    /// Suspects of a source become those of another, which has come in its place.
    pub(super) fn inherit(&mut self, slot: Slot, heir: Slot, brake: Brake) {
        for suspect in self.suspects.values_mut().filter(|suspect| suspect.slot == slot) {
            (suspect.slot, suspect.until) = (heir, suspect.since + brake.hold);
        }
    }

    fn take(&mut self, is_over: impl Fn(&Suspect) -> bool) -> Vec<Address> {
        let over = self.suspects.iter().filter(|(_, suspect)| is_over(suspect));
        let over: Vec<_> = over.map(|(address, _)| address.clone()).collect();
        for address in &over {
            self.suspects.remove(address);
        }
        over
    }
}
