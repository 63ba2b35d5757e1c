//! Maglev hashing: a table in which each endpoint owns as many places as it has weight (Eisenbud et
//! al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! More even than a ring, and one look at the table finds an endpoint. When an endpoint leaves, a few
//! keys of others move as well.

use super::hash::mix;

/// Places of a table: prime, and more than 100 for each of 600 endpoints, which keeps shares within
/// 1 % of the weights; both numbers are the paper's.
const PLACES: usize = 65_537;
/// Places where there are more endpoints than [`MANY`].
const MORE_PLACES: usize = 655_373;
const MANY: usize = 16_384;

/// Which endpoint owns each place.
#[derive(Debug)]
pub(super) struct Maglev {
    owners: Vec<u32>,
}

/// An endpoint while the table is filled: it takes the first free place in an order of its own.
struct Filling {
    place: usize,
    skip: usize,
    weight: u32,
    /// Weight that it has gathered for its next place.
    credit: u32,
}

impl Maglev {
    /// A table of endpoints, given by hash and weight.
    pub(super) fn new(endpoints: &[(u64, u32)]) -> Self {
        let places = if endpoints.len() > MANY { MORE_PLACES } else { PLACES };
        let heaviest = endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
        let filling = |(hash, weight): &(u64, u32)| Filling {
            place: (mix(*hash, 0) % places as u64) as usize,
            skip: (mix(*hash, 1) % (places as u64 - 1)) as usize + 1,
            weight: *weight,
            credit: 0,
        };
        let mut filling: Vec<_> = endpoints.iter().map(filling).collect();
        let mut owners = vec![u32::MAX; if heaviest > 0 { places } else { 0 }];
        let mut free = owners.len();
        while free > 0 {
            for (endpoint, owner) in filling.iter_mut().zip(0..) {
                // The heaviest takes a place in each round, the others as often as they are as heavy.
                endpoint.credit += endpoint.weight;
                if endpoint.credit < heaviest {
                    continue;
                }
                endpoint.credit -= heaviest;
                let place = endpoint.take(&owners);
                owners[place] = owner;
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        Self { owners }
    }

    /// Who owns the places, in order.
    pub(super) fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// The place of a key.
    pub(super) fn place(&self, key: u64) -> usize {
        (key % (self.owners.len() as u64).max(1)) as usize
    }
}

impl Filling {
    /// The next place of its order that is free. There is one, and since the number of places is
    /// prime, the order comes by all of them.
    fn take(&mut self, owners: &[u32]) -> usize {
        loop {
            let place = self.place;
            self.place += self.skip;
            if self.place >= owners.len() {
                self.place -= owners.len();
            }
            if owners[place] == u32::MAX {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tables::tests::{endpoints, moved};

    fn places(maglev: &Maglev, size: usize) -> Vec<usize> {
        let mut places = vec![0; size];
        maglev.owners().iter().for_each(|owner| places[*owner as usize] += 1);
        places
    }

    #[test]
    fn places_follow_the_weights_closely() {
        let maglev = Maglev::new(&endpoints(&[100, 200, 300, 400]));
        for (places, weight) in places(&maglev, 4).into_iter().zip([1.0, 2.0, 3.0, 4.0]) {
            let wanted = PLACES as f64 * weight / 10.0;
            assert!((places as f64 / wanted - 1.0).abs() < 0.001, "{places} for {weight}");
        }
        for size in [1, 3, 600] {
            let places = places(&Maglev::new(&endpoints(&vec![1; size])), size);
            assert!(places.iter().all(|count| count.abs_diff(PLACES / size) <= 1), "{places:?}");
        }
    }

    #[test]
    fn when_an_endpoint_leaves_few_keys_of_others_move() {
        for (size, most) in [(2, 0.001), (10, 0.02), (100, 0.02), (600, 0.02)] {
            let endpoints = endpoints(&vec![1; size]);
            let maglev = Maglev::new(&endpoints);
            let mut left = endpoints.clone();
            left.remove(size / 2);
            let after = Maglev::new(&left);
            let before = |key| endpoints[maglev.owners()[maglev.place(key)] as usize].0;
            let after = |key| left[after.owners()[after.place(key)] as usize].0;
            let (_, others) = moved(before, after, endpoints[size / 2].0);
            assert!((others as f64) < most * 100_000.0, "of {size}: {others} of 100000");
        }
    }

    #[test]
    fn there_is_a_place_for_each_of_very_many() {
        let size = MANY + 1;
        let places = places(&Maglev::new(&endpoints(&vec![1; size])), size);
        assert!(places.iter().all(|count| (39..=40).contains(count)));
    }
}
