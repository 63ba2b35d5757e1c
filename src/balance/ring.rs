//! A hash ring: each endpoint owns points on a circle, and a key goes to the next point (Karger et
//! al., 1997; Envoy's `ring_hash`).
//!
//! When an endpoint leaves, its keys go to the next point each, which spreads them over the others;
//! no other key moves. When it comes back, it gets exactly these.

use super::hash::mix;

/// Points of an endpoint of mean weight: shares of the keys are then within about 10 % of the weights.
const POINTS: usize = 128;
/// Most points in all. Building costs about a millisecond for each 50 000.
const MOST_POINTS: usize = 1 << 18;

/// Points in order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<u64>,
    /// Which endpoint owns a point.
    owners: Vec<u32>,
    /// Where the points begin that are in a piece of the circle; pieces are of equal size, one a
    /// point or more, so that a look-up looks at few points.
    pieces: Vec<u32>,
    /// Bits of a hash that do not tell the piece.
    shift: u32,
}

impl Ring {
    /// A ring of endpoints, given by hash and weight.
    pub(super) fn new(endpoints: &[(u64, u32)]) -> Self {
        let counts = counts(endpoints);
        let total: usize = counts.iter().sum();
        let shift = u64::BITS - total.next_power_of_two().ilog2().max(1);
        let piece = |point: u64| (point >> shift) as usize;
        let points = || {
            let endpoints = endpoints.iter().zip(&counts).zip(0_u32..);
            endpoints.flat_map(|(((hash, _), &count), owner)| {
                (0..count as u64).map(move |number| (mix(*hash, number), owner))
            })
        };
        // Counting where each piece begins, then putting each point into its piece, is a sort in two
        // passes, since hashes are spread evenly.
        let mut pieces = vec![0_u32; (1 << (u64::BITS - shift)) + 1];
        points().for_each(|(point, _)| pieces[piece(point) + 1] += 1);
        for at in 1..pieces.len() {
            pieces[at] += pieces[at - 1];
        }
        let mut free = pieces.clone();
        let mut sorted = vec![(0, 0); total];
        for (point, owner) in points() {
            let place = &mut free[piece(point)];
            sorted[*place as usize] = (point, owner);
            *place += 1;
        }
        for ends in pieces.windows(2) {
            sorted[ends[0] as usize..ends[1] as usize].sort_unstable();
        }
        let (points, owners) = sorted.into_iter().unzip();
        Self { points, owners, pieces, shift }
    }

    /// Who owns the points, in order.
    pub(super) fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// The first point for a key, from which one goes on to the next. Points are at their end of the
    /// way that they own; after the last one comes the first.
    pub(super) fn place(&self, key: u64) -> usize {
        let piece = (key >> self.shift) as usize;
        let (from, to) = (self.pieces[piece] as usize, self.pieces[piece + 1] as usize);
        let place = from + self.points[from..to].iter().take_while(|point| **point < key).count();
        if place < self.points.len() { place } else { 0 }
    }
}

/// Points of each endpoint. For many endpoints fewer, halved at each power of two, so that the
/// number seldom changes, with which some keys move.
fn counts(endpoints: &[(u64, u32)]) -> Vec<usize> {
    let total: f64 = endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let points = (MOST_POINTS / endpoints.len().next_power_of_two()).clamp(1, POINTS);
    let each = points as f64 * endpoints.len() as f64 / total;
    let count = |weight: u32| (f64::from(weight) * each).round().max(1.0) as usize;
    endpoints.iter().map(|(_, weight)| count(*weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tables::tests::{endpoints, moved, shares};

    #[test]
    fn shares_of_keys_follow_the_weights() {
        let ring = Ring::new(&endpoints(&[1, 2, 3, 4, 0].map(|weight| weight * 100 + 100)));
        for (share, weight) in shares(ring.owners().len(), |key| ring.owners()[ring.place(key)])
            .into_iter()
            .zip([2.0, 3.0, 4.0, 5.0, 1.0])
        {
            // Points lie at random: n of them hold 1/√n more or less than their part.
            let close = 3.0 / (weight / 15.0 * ring.owners().len() as f64).sqrt();
            assert!((share / (weight / 15.0) - 1.0).abs() < close, "{share} for {weight}");
        }
    }

    #[test]
    fn a_key_goes_to_the_next_point_and_after_the_last_to_the_first() {
        let ring = Ring::new(&endpoints(&[1; 40]));
        assert!(ring.points.is_sorted());
        for (place, point) in ring.points.iter().enumerate() {
            assert_eq!(ring.place(*point), place);
            assert_eq!(ring.place(point + 1), (place + 1) % ring.points.len());
        }
        assert_eq!((ring.place(0), ring.place(u64::MAX)), (0, 0));
    }

    #[test]
    fn when_an_endpoint_leaves_only_its_keys_move_and_they_come_back_with_it() {
        for size in [2, 10, 200] {
            let endpoints = endpoints(&vec![1; size]);
            let ring = Ring::new(&endpoints);
            for out in [0, size / 2, size - 1] {
                let mut left = endpoints.clone();
                left.remove(out);
                let after = Ring::new(&left);
                let before = |key| endpoints[ring.owners()[ring.place(key)] as usize].0;
                let after = |key| left[after.owners()[after.place(key)] as usize].0;
                let (of_it, others) = moved(before, after, endpoints[out].0);
                assert!(of_it > 0 && others == 0, "{others} of others");
            }
        }
    }

    #[test]
    fn many_endpoints_have_fewer_points_each() {
        let points = |size: usize| Ring::new(&endpoints(&vec![1; size])).owners().len();
        assert_eq!(points(1), POINTS);
        assert_eq!(points(2_048), 2_048 * POINTS);
        assert_eq!(points(10_000), 10_000 * 16);
    }
}
