//! A hashed timing wheel (Varghese and Lauck, 1987, scheme 6): lists of alarms by the last bits of
//! their tick.
//!
//! To insert and to remove costs the same few steps however many there are. An alarm of a later round is
//! met, and left, once a round.

use std::task::Waker;

use slab::Slab;
use smallvec::SmallVec;

/// Lists; a tick of a millisecond makes a round of about a second.
const SLOTS: usize = 1024;

/// Where an alarm is in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(usize);

/// Alarms in the order of their tick, as far as a wheel has one.
#[derive(Debug)]
pub(super) struct Wheel {
    /// First alarm of each list.
    heads: Box<[Option<usize>; SLOTS]>,
    /// A bit for each list that is not empty.
    taken: [u64; SLOTS / 64],
    entries: Slab<Entry>,
    /// Tick up to which all have rung.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    tick: u64,
    /// None once it has rung; it is in no list then.
    waker: Option<Waker>,
    before: Option<usize>,
    after: Option<usize>,
}

impl Default for Wheel {
    fn default() -> Self {
        let heads = Box::new([None; SLOTS]);
        Self { heads, taken: [0; SLOTS / 64], entries: Slab::new(), now: 0 }
    }
}

impl Wheel {
    /// Adds an alarm. One for a tick that has passed rings at the next.
    pub(super) fn insert(&mut self, tick: u64, waker: Waker) -> Key {
        let tick = tick.max(self.now + 1);
        let slot = slot(tick);
        let after = self.heads[slot];
        let entry = Entry { tick, waker: Some(waker), before: None, after };
        let key = self.entries.insert(entry);
        if let Some(after) = after {
            self.entries[after].before = Some(key);
        }
        self.heads[slot] = Some(key);
        self.taken[slot / 64] |= 1 << (slot % 64);
        Key(key)
    }

    /// Whether an alarm has rung. If not, it will wake `waker`; what it would have woken comes back,
    /// where that is another one.
    pub(super) fn look(&mut self, key: Key, waker: &Waker) -> (bool, Option<Waker>) {
        match &mut self.entries[key.0].waker {
            None => (true, None),
            Some(known) if known.will_wake(waker) => (false, None),
            Some(known) => (false, Some(std::mem::replace(known, waker.clone()))),
        }
    }

    /// Takes an alarm out, whether or not it has rung. Its waker comes back if it has not.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waker> {
        if self.entries[key.0].waker.is_some() {
            self.unlink(key.0);
        }
        self.entries.remove(key.0).waker
    }

    /// Rings all alarms up to the tick `now`: their wakers are put into `due`.
    pub(super) fn advance(&mut self, now: u64, due: &mut SmallVec<[Waker; 16]>) {
        let from = self.now + 1;
        self.now = self.now.max(now);
        // More than a round has passed: each list once.
        for tick in from..=now.min(from + SLOTS as u64 - 1) {
            let mut next = self.heads[slot(tick)];
            while let Some(key) = next {
                let entry = &mut self.entries[key];
                next = entry.after;
                if entry.tick <= now {
                    due.extend(entry.waker.take());
                    self.unlink(key);
                }
            }
        }
    }

    /// A tick at which the next one may ring: none rings before it. None where there are no alarms.
    pub(super) fn next(&self) -> Option<u64> {
        let first = slot(self.now + 1);
        // From the first list on to the end, then from the beginning: 17 words, the first one twice.
        (0..=self.taken.len()).find_map(|step| {
            let word = (first / 64 + step) % self.taken.len();
            let below_first = (1_u64 << (first % 64)) - 1;
            let bits = match step {
                0 => self.taken[word] & !below_first,
                step if step == self.taken.len() => self.taken[word] & below_first,
                _ => self.taken[word],
            };
            let found = word * 64 + bits.trailing_zeros() as usize;
            let ahead = (found + SLOTS - first) % SLOTS;
            (bits != 0).then_some(self.now + 1 + ahead as u64)
        })
    }

    /// How many there are, rung or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn unlink(&mut self, key: usize) {
        let Entry { tick, before, after, .. } = self.entries[key];
        let slot = slot(tick);
        if let Some(after) = after {
            self.entries[after].before = before;
        }
        match before {
            Some(before) => self.entries[before].after = after,
            None => {
                self.heads[slot] = after;
                if after.is_none() {
                    self.taken[slot / 64] &= !(1 << (slot % 64));
                }
            }
        }
    }
}

const fn slot(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Rings(AtomicBool);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    /// What happens to a wheel, and to a list that is known to be right.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..5_000_u64).prop_map(Step::Insert),
            (0..100_usize).prop_map(Step::Remove),
            prop_oneof![0..5_u64, 0..3_000_u64].prop_map(Step::Advance),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn each_alarm_rings_at_its_tick_unless_it_was_taken_back(steps in steps()) {
            let mut wheel = Wheel::default();
            let mut alarms = BTreeMap::new();
            let (mut now, mut number) = (0, 0);
            for step in steps {
                match step {
                    Step::Insert(ahead) => {
                        let rings = Arc::new(Rings::default());
                        let key = wheel.insert(now + ahead, Waker::from(Arc::clone(&rings)));
                        alarms.insert(number, (key, (now + ahead).max(now + 1), rings));
                        number += 1;
                    }
                    Step::Remove(at) => {
                        if let Some(&number) = alarms.keys().nth(at) {
                            let (key, tick, rings) = alarms.remove(&number).unwrap();
                            let waker = wheel.remove(key);
                            prop_assert_eq!(waker.is_some(), tick > now);
                            prop_assert_eq!(rings.0.load(Relaxed), tick <= now);
                        }
                    }
                    Step::Advance(by) => {
                        if let Some(next) = wheel.next() {
                            let earliest = alarms.values().map(|(_, tick, _)| *tick);
                            let earliest = earliest.filter(|tick| *tick > now).min().unwrap();
                            prop_assert!(now < next && next <= earliest);
                        }
                        now += by;
                        let mut due = SmallVec::new();
                        wheel.advance(now, &mut due);
                        due.into_iter().for_each(Waker::wake);
                    }
                }
                let waiting = alarms.values().any(|(_, tick, _)| *tick > now);
                prop_assert_eq!(wheel.next().is_some(), waiting);
                for (key, tick, rings) in alarms.values() {
                    prop_assert_eq!(rings.0.load(Relaxed), *tick <= now);
                    prop_assert_eq!(wheel.look(*key, Waker::noop()).0, *tick <= now);
                    // Back to the one that is counted.
                    wheel.look(*key, &Waker::from(Arc::clone(rings)));
                }
            }
        }
    }

    #[test]
    fn what_comes_next_is_found_in_every_list() {
        for from in 0..2 * SLOTS as u64 {
            let mut wheel = Wheel::default();
            wheel.advance(from, &mut SmallVec::new());
            for ahead in [1, 2, 63, 64, 65, 500, SLOTS as u64] {
                let key = wheel.insert(from + ahead, Waker::noop().clone());
                assert_eq!(wheel.next(), Some(from + ahead), "{ahead} from {from}");
                wheel.remove(key);
                assert_eq!(wheel.next(), None);
            }
        }
    }

    #[test]
    fn a_waker_that_is_replaced_is_handed_back() {
        let held = Arc::new(Rings::default());
        let mut wheel = Wheel::default();
        let key = wheel.insert(1, Waker::from(Arc::clone(&held)));
        let (_, old) = wheel.look(key, Waker::noop());
        assert!(old.is_some());
        drop(old);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
