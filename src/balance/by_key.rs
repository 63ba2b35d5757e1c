//! The same endpoint for the same key: consistent hashing with bounded loads.

use std::sync::Arc;

use super::{
    hash::{hash_of, mix},
    members::Members,
    p2c,
    play::Play,
    ramp::Ramp,
    tables::{LazyTable, Shared, Tables},
    turns::Turns,
    wheel::Wheel,
};
use crate::{config::Balance, model::Tally};

/// How many times its share of the calls in flight an endpoint may hold before keys go to the next
/// one ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup and Zadimoghaddam, 2016).
const BOUND: f64 = 1.25;
/// Calls in flight that an endpoint may hold in any case: where there are hardly any calls, each share
/// is below one, and the calls of one user, a few at once, are not to be torn apart.
const FREE: u32 = 8;
/// Points that are looked at for one pick. An endpoint in play turns up much earlier.
const MOST_STEPS: usize = 4096;
/// Weight of the heaviest endpoint in a table. Parts of calls are rounded to it, so that it takes a
/// change of some size to move keys.
const HEAVIEST: f64 = 1024.0;

/// A table and who is in it.
#[derive(Debug)]
pub(super) struct ByKey {
    balance: Balance,
    tables: Tables,
    table: Arc<LazyTable>,
    /// Member for each owner of the table.
    owners: Vec<usize>,
    ramps: Vec<Ramp>,
    tally: Arc<Tally>,
    /// For calls without a key; made when one comes.
    turns: Option<Turns>,
}

impl ByKey {
    pub(super) fn new(
        balance: Balance,
        members: &Members,
        play: &Play,
        shared: Shared<'_>,
    ) -> Self {
        let (owners, endpoints) = owners(members, play);
        Self {
            balance,
            tables: shared.tables.clone(),
            table: shared.tables.table(balance, endpoints),
            owners,
            ramps: play.ramps.clone(),
            tally: shared.tally(),
            turns: None,
        }
    }

    pub(super) fn reweigh(&mut self, members: &Members, play: &Play, old: &Wheel, new: &Wheel) {
        let (owners, endpoints) = owners(members, play);
        self.owners = owners;
        self.table = self.tables.table(self.balance, endpoints);
        self.ramps.clone_from(&play.ramps);
        if let Some(turns) = &mut self.turns {
            turns.reweigh(old, new);
        }
    }

    /// Without a key there is nothing to keep together: any endpoint, as p2c picks it.
    pub(super) fn first(
        &mut self,
        members: &Members,
        wheel: &Wheel,
        key: Option<u64>,
    ) -> Option<usize> {
        match key {
            Some(key) => self.find(members, wheel, key, &[]),
            None => {
                let turns = self.turns.get_or_insert_with(|| Turns::new(wheel));
                p2c::next(members, wheel, turns)
            }
        }
    }

    /// The first endpoint on the way of `key` that is in play, not excluded, and has room.
    pub(super) fn find(
        &self,
        members: &Members,
        wheel: &Wheel,
        key: u64,
        excluded: &[usize],
    ) -> Option<usize> {
        let any = wheel.draw(mix(key, 0), excluded)?;
        let mut first = None;
        for owner in self.table.walk(key).take(MOST_STEPS) {
            let Some(&at) = self.owners.get(owner) else { continue };
            if wheel.weight(at) == 0 || excluded.contains(&at) {
                continue;
            }
            if self.takes(members, at, key) && self.has_room(members, wheel, at) {
                return Some(at);
            }
            first = first.or(Some(at));
        }
        first.or(Some(any))
    }

    /// The members in play in the order in which a key asks for them, each once.
    pub(super) fn way<'a>(
        &'a self,
        wheel: &'a Wheel,
        key: u64,
    ) -> impl Iterator<Item = usize> + 'a {
        let mut seen = Vec::new();
        let owners = self.table.walk(key).take(MOST_STEPS);
        let members = owners.filter_map(|owner| self.owners.get(owner).copied());
        members.filter(move |&at| {
            let is_new = wheel.weight(at) > 0 && !seen.contains(&at);
            seen.extend(is_new.then_some(at));
            is_new
        })
    }

    /// Whether a member takes a key already. A new one takes them one by one as it grows into its
    /// weight, so that each key moves to it once.
    fn takes(&self, members: &Members, at: usize, key: u64) -> bool {
        let Ok(found) = self.ramps.binary_search_by_key(&at, |ramp| ramp.at) else { return true };
        let number = mix(key, hash_of(&members.endpoints()[at]));
        (number as f64) < self.ramps[found].part * u64::MAX as f64
    }

    fn has_room(&self, members: &Members, wheel: &Wheel, at: usize) -> bool {
        let held = members.endpoints()[at].load.in_flight();
        if held < FREE {
            return true;
        }
        let share = wheel.weight(at) as f64 / wheel.total() as f64;
        f64::from(held) < (BOUND * f64::from(self.tally.calls() + 1) * share).ceil()
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

/// Members that have a part, each with its hash and weight in a table. Those that are not usable now
/// stay in it, so that their keys come back to them and no others move; unless they are so many that
/// a key would have to look for long.
fn owners(members: &Members, play: &Play) -> (Vec<usize>, Vec<(u64, u32)>) {
    let Some(parts) = &play.parts else {
        let weights: Vec<_> = members.weights().map(f64::from).collect();
        return weigh(members, (0..members.len()).collect(), |at| weights[at]);
    };
    let with_part = parts.iter().filter(|part| part.size > 0.0).count();
    let in_play = parts.iter().filter(|part| part.is_in_play()).count();
    let stay = 4 * in_play >= with_part;
    let is_owner = |at: &usize| if stay { parts[*at].size > 0.0 } else { parts[*at].is_in_play() };
    weigh(members, (0..members.len()).filter(is_owner).collect(), |at| parts[at].size)
}

fn weigh(
    members: &Members,
    owners: Vec<usize>,
    size: impl Fn(usize) -> f64,
) -> (Vec<usize>, Vec<(u64, u32)>) {
    let heaviest = owners.iter().map(|&at| size(at)).fold(0.0, f64::max);
    let endpoint = |&at: &usize| {
        let weight = (size(at) / heaviest * HEAVIEST).round().max(1.0) as u32;
        (hash_of(&members.endpoints()[at]), weight)
    };
    let endpoints = owners.iter().map(endpoint).collect();
    (owners, endpoints)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        balance::{
            Choice,
            testing::{Fixture, by, choice, set_usable},
        },
        config::Policy,
        model::{Service, stable_hash},
    };

    const BOTH: [Balance; 2] = [Balance::RingHash, Balance::Maglev];

    fn address(choice: &Choice, key: u64) -> String {
        choice.pick(Some(key), &[]).unwrap().endpoint.record.address.to_string()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..2_000_u64).map(|key| stable_hash(&key.to_le_bytes()))
    }

    #[test]
    fn a_key_stays_with_its_endpoint_and_every_proxy_agrees() {
        for balance in BOTH {
            let make = |seed| {
                fastrand::seed(seed);
                choice(&Fixture::new(20).snapshot(), "", &by(balance))
            };
            let (one, two) = (make(1), make(2));
            for key in keys() {
                assert_eq!(address(&one, key), address(&two, key));
                assert_eq!(address(&one, key), address(&one, key));
            }
        }
    }

    #[test]
    fn keys_of_an_endpoint_that_cannot_take_calls_go_elsewhere_and_come_back() {
        for balance in BOTH {
            let snapshot = Fixture::new(20).snapshot();
            let choice = choice(&snapshot, "", &by(balance));
            let service = Service::new(snapshot);
            let endpoint = Arc::clone(&service.snapshot().endpoints[7]);
            let all = || keys().map(|key| (key, address(&choice, key))).collect::<HashMap<_, _>>();
            let before = all();
            set_usable(&service, &endpoint, false);
            choice.keep_up(service.changes(), std::time::Instant::now);
            let meanwhile = all();
            let mut homes = std::collections::HashSet::new();
            for (key, address) in &meanwhile {
                let was = &before[key];
                assert_eq!(was != address, was == endpoint.record.address.as_str());
                homes.extend((was != address).then_some(address));
            }
            assert!(homes.len() > 8, "they are spread over the others: {homes:?}");
            set_usable(&service, &endpoint, true);
            choice.keep_up(service.changes(), std::time::Instant::now);
            assert_eq!(all(), before);
        }
    }

    #[test]
    fn no_endpoint_holds_much_more_than_its_share_however_hot_a_key_is() {
        for balance in BOTH {
            let choice = choice(&Fixture::new(10).snapshot(), "", &by(balance));
            let mut held = Vec::new();
            let mut counts = HashMap::<String, usize>::new();
            for _ in 0..400 {
                let picked = choice.pick(Some(7), &[]).unwrap();
                *counts.entry(picked.endpoint.record.address.to_string()).or_default() += 1;
                held.extend(picked.hold(0));
            }
            assert_eq!(counts.values().max(), Some(&50), "1.25 times 40: {counts:?}");
            drop(held);
            let home = address(&choice, 7);
            assert_eq!(counts[&home], 50);
        }
    }

    #[test]
    fn a_few_calls_of_one_key_are_not_torn_apart() {
        for balance in BOTH {
            let choice = choice(&Fixture::new(10).snapshot(), "", &by(balance));
            let picks: Vec<_> = (0..FREE).map(|_| choice.pick(Some(7), &[]).unwrap()).collect();
            let home = Arc::clone(picks[0].endpoint);
            let held: Vec<_> = picks.into_iter().filter_map(|picked| picked.hold(0)).collect();
            assert_eq!(home.load.in_flight(), FREE);
            assert_ne!(address(&choice, 7), home.record.address.as_str());
            drop(held);
            assert_eq!(address(&choice, 7), home.record.address.as_str());
        }
    }

    #[test]
    fn further_attempts_go_on_along_the_way_of_the_key() {
        for balance in BOTH {
            let choice = choice(&Fixture::new(10).snapshot(), "", &by(balance));
            let way = |key| {
                let mut tried = Vec::new();
                while let Ok(picked) = choice.pick(Some(key), &tried) {
                    tried.push(Arc::clone(picked.endpoint));
                }
                tried.iter().map(|e| e.record.address.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(way(7).len(), 10);
            assert!(keys().take(100).all(|key| way(key) == way(key)));
        }
    }

    #[test]
    fn as_an_endpoint_grows_new_keys_move_to_it_and_none_moves_twice() {
        let (window, start) = (std::time::Duration::from_secs(100), std::time::Instant::now());
        let policy = Policy { slow_start: window, ..by(Balance::RingHash) };
        let snapshot = Fixture::new(10).joined(3, std::time::Duration::ZERO, start).snapshot();
        let choice = choice(&snapshot, "", &policy);
        let new = snapshot.endpoints[3].record.address.as_str();
        let mut homes: HashMap<_, _> = keys().map(|key| (key, address(&choice, key))).collect();
        for age in [20, 40, 60, 80, 100] {
            choice.keep_up(0, || start + std::time::Duration::from_secs(age));
            for (key, home) in &mut homes {
                let now = address(&choice, *key);
                assert!(now == *home || now == new, "{key} moved from {home} to {now}");
                *home = now;
            }
        }
        let share = homes.values().filter(|home| *home == new).count();
        assert!((120..=280).contains(&share), "{share} of 2000");
    }
}
