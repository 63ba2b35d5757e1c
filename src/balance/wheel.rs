//! Positions with weights, ready to be drawn from.

use smallvec::SmallVec;

use super::draw::scale;

/// Positions to leave out of a draw, ascending. Calls try few endpoints, so it stays on the stack.
pub(super) type Excluded = SmallVec<[usize; 4]>;

/// Weights of positions 0 to n; those of weight 0 are never drawn. A draw costs O(1) where all
/// weights are equal, else O(log n).
#[derive(Debug, Default)]
pub(super) struct Wheel {
    len: usize,
    /// Running total of weights, one a position; empty where all are equal.
    totals: Vec<u64>,
    heaviest: u64,
    /// How many have a weight.
    drawn: usize,
}

impl Wheel {
    /// The sum of the weights must fit into 64 bits.
    pub(super) fn new(weights: impl Iterator<Item = u64> + Clone) -> Self {
        let first = weights.clone().next().unwrap_or(0);
        if first > 0 && weights.clone().all(|weight| weight == first) {
            let len = weights.count();
            return Self { len, totals: Vec::new(), heaviest: 1, drawn: len };
        }
        let (mut heaviest, mut drawn) = (0, 0);
        let sum = |total: &mut u64, weight: u64| {
            heaviest = heaviest.max(weight);
            drawn += usize::from(weight > 0);
            *total += weight;
            Some(*total)
        };
        let totals: Vec<_> = weights.scan(0, sum).collect();
        Self { len: totals.len(), totals, heaviest, drawn }
    }

    /// How many positions there are, drawn or not.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Relative weight of a position: as given, or 1 where all are equal.
    pub(super) fn weight(&self, at: usize) -> u64 {
        match (self.totals.is_empty(), at) {
            (true, _) => 1,
            (false, 0) => self.totals[0],
            (false, at) => self.totals[at] - self.totals[at - 1],
        }
    }

    /// Sum of the weights.
    pub(super) fn total(&self) -> u64 {
        self.totals.last().copied().unwrap_or(self.len as u64)
    }

    /// Mean weight of those that have one.
    pub(super) fn mean(&self) -> f64 {
        self.total() as f64 / self.drawn as f64
    }

    /// Draws a position by weight among those not excluded. `number` is uniform in 0..2^64.
    pub(super) fn draw(&self, number: u64, excluded: &[usize]) -> Option<usize> {
        let left = self.left(excluded);
        (left > 0).then(|| self.at(scale(number, left), excluded))
    }

    /// Draws two different positions, so that each place of the pair falls to a position by its
    /// weight: the first is drawn anywhere, the second at a random distance from it that is at least
    /// the heaviest weight. Where one of each pair is then taken by the toss of a coin, each position
    /// so gets exactly its share, which it would not if the second were drawn by weight among the
    /// others. The two are the same only where one position has more than half of the weight, and for
    /// as much of it as is more than half.
    pub(super) fn pair(&self, numbers: (u64, u64), excluded: &[usize]) -> Option<(usize, usize)> {
        let left = self.left(excluded);
        if left == 0 {
            return None;
        }
        let from = scale(numbers.0, left);
        let nearest = self.heaviest.min(left / 2);
        let distance = nearest + scale(numbers.1, left - 2 * nearest + 1);
        let second = (u128::from(from) + u128::from(distance)) % u128::from(left);
        Some((self.at(from, excluded), self.at(second as u64, excluded)))
    }

    /// Weight of what is not excluded.
    fn left(&self, excluded: &[usize]) -> u64 {
        self.total() - excluded.iter().map(|&at| self.weight(at)).sum::<u64>()
    }

    /// The position at a point of what is left: the excluded pieces before it are stepped over.
    fn at(&self, mut point: u64, excluded: &[usize]) -> usize {
        if self.totals.is_empty() {
            let mut at = point as usize;
            for &excluded in excluded {
                at += usize::from(at >= excluded);
            }
            return at;
        }
        for &excluded in excluded {
            if point >= self.totals[excluded] - self.weight(excluded) {
                point += self.weight(excluded);
            }
        }
        self.totals.partition_point(|&total| total <= point)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wheel(weights: &[u64]) -> Wheel {
        Wheel::new(weights.iter().copied())
    }

    #[test]
    fn what_has_no_weight_is_never_drawn() {
        let wheel = wheel(&[0, 2, 0, 2, 0]);
        for number in [0, 1, u64::MAX / 2, u64::MAX / 2 + 2, u64::MAX] {
            assert!(matches!(wheel.draw(number, &[]), Some(1 | 3)));
            assert_eq!(wheel.draw(number, &[1]), Some(3));
            assert_eq!(wheel.draw(number, &[1, 3]), None);
        }
        assert_eq!(super::Wheel::new(std::iter::empty()).draw(7, &[]), None);
        assert_eq!(Wheel::new([0, 0].into_iter()).draw(7, &[]), None);
    }

    proptest! {
        #[test]
        fn a_draw_never_returns_an_excluded_position_and_ends_when_none_is_left(
            weights in prop::collection::vec(1_u64..9, 1..30),
            excluded in prop::collection::btree_set(0_usize..30, 0..5),
            number: u64,
        ) {
            let wheel = wheel(&weights);
            let excluded: Vec<_> = excluded.into_iter().filter(|at| *at < weights.len()).collect();
            match wheel.draw(number, &excluded) {
                Some(at) => prop_assert!(at < weights.len() && !excluded.contains(&at)),
                None => prop_assert_eq!(excluded.len(), weights.len()),
            }
        }

        #[test]
        fn what_is_left_keeps_its_relative_weights(
            weights in prop::collection::vec(1_u64..9, 3..10),
            out in 0_usize..3,
        ) {
            let wheel = wheel(&weights);
            let mut drawn = vec![0_u64; weights.len()];
            let left: u64 = wheel.total() - wheel.weight(out);
            // One number in the middle of each unit of weight hits each position `weight` times.
            for unit in 0..left {
                let number = ((u128::from(2 * unit + 1) << 64) / u128::from(2 * left)) as u64;
                drawn[wheel.draw(number, &[out]).unwrap()] += 1;
            }
            for (at, drawn) in drawn.into_iter().enumerate() {
                prop_assert_eq!(drawn, if at == out { 0 } else { wheel.weight(at) });
            }
        }

        #[test]
        fn a_pair_is_of_two_unless_one_has_more_than_half(
            weights in prop::collection::vec(0_u64..9, 1..12),
            numbers: (u64, u64),
        ) {
            let wheel = wheel(&weights);
            let Some((first, second)) = wheel.pair(numbers, &[]) else {
                prop_assert_eq!(wheel.total(), 0);
                return Ok(());
            };
            prop_assert!(wheel.weight(first) > 0 && wheel.weight(second) > 0);
            prop_assert!(first != second || 2 * wheel.weight(first) > wheel.total());
        }
    }

    #[test]
    fn each_place_of_a_pair_falls_to_a_position_by_its_weight() {
        let mut numbers = fastrand::Rng::with_seed(7);
        for weights in [&[1, 1, 1, 1][..], &[1, 2, 3], &[1, 9], &[0, 5, 1, 1, 3]] {
            let wheel = wheel(weights);
            let total: u64 = weights.iter().sum();
            let mut drawn = vec![[0_u64; 2]; weights.len()];
            for _ in 0..60_000 {
                let (first, second) = wheel.pair((numbers.u64(..), numbers.u64(..)), &[]).unwrap();
                drawn[first][0] += 1;
                drawn[second][1] += 1;
            }
            for (drawn, weight) in drawn.iter().zip(weights) {
                let expected = 60_000 * weight / total;
                for drawn in drawn {
                    assert!(drawn.abs_diff(expected) < 700, "{weights:?}: {drawn} for {expected}");
                }
            }
        }
    }
}
