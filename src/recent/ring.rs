//! The calls that are kept: a fixed number and size.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use super::Entry;

/// Calls kept at most.
pub(super) const MOST_CALLS: usize = 1024;
/// Bytes of text kept at most, of all calls together.
const MOST_BYTES: usize = 1 << 20;

/// The last calls. When there is no room, the oldest one of the kind that has the most goes: a flood of
/// calls that fail alike does not push out the one that failed otherwise.
#[derive(Debug, Default)]
pub(super) struct Ring {
    calls: VecDeque<Rc<Entry>>,
    bytes: usize,
    of_kind: HashMap<u64, usize>,
}

impl Ring {
    pub(super) fn push(&mut self, entry: Rc<Entry>) {
        self.bytes += entry.bytes();
        *self.of_kind.entry(entry.kind).or_default() += 1;
        self.calls.push_back(entry);
        while self.calls.len() > MOST_CALLS || self.bytes > MOST_BYTES {
            self.make_room();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Rc<Entry>> {
        self.calls.iter().rev()
    }

    fn make_room(&mut self) {
        let most = self.of_kind.values().max().copied().unwrap_or_default();
        let is_of_most = |entry: &Rc<Entry>| self.of_kind.get(&entry.kind) == Some(&most);
        let at = self.calls.iter().position(is_of_most).unwrap_or_default();
        let Some(gone) = self.calls.remove(at) else { return };
        self.bytes -= gone.bytes();
        if let Some(left) = self.of_kind.get_mut(&gone.kind) {
            *left -= 1;
            if *left == 0 {
                self.of_kind.remove(&gone.kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(ring: &Ring) -> Vec<&str> {
        ring.newest_first().map(|entry| &*entry.service).collect()
    }

    #[test]
    fn a_flood_of_one_kind_pushes_out_only_its_own() {
        let mut ring = Ring::default();
        ring.push(Entry::of("rare", "INTERNAL", 10).into());
        for _ in 0..5 * MOST_CALLS {
            ring.push(Entry::of("flood", "UNAVAILABLE", 10).into());
        }
        assert_eq!((ring.len(), services(&ring).last()), (MOST_CALLS, Some(&"rare")));
        for _ in 0..5 * MOST_CALLS {
            ring.push(Entry::of("flood", "INTERNAL", 10).into());
        }
        let of = |status| ring.newest_first().filter(|entry| entry.status == status).count();
        let (old, new) = (of("UNAVAILABLE"), of("INTERNAL"));
        assert!(old.abs_diff(new) <= 2, "two floods share the room: {old} and {new}");
        assert_eq!(services(&ring).last(), Some(&"rare"));
        assert_eq!(ring.of_kind.len(), 3);
    }

    #[test]
    fn large_calls_take_the_room_of_several() {
        let mut ring = Ring::default();
        for _ in 0..1000 {
            ring.push(Entry::of("orders", "UNAVAILABLE", 10_000).into());
        }
        assert!((95..=105).contains(&ring.len()), "{}", ring.len());
        assert!(ring.bytes <= MOST_BYTES);
    }
}
