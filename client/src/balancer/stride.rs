//! Round robin, plain and by weight.

use super::{Candidates, takes_turn, walk, weights};

/// The weight of the heaviest.
const FULL: u16 = u16::MAX;
/// Half a stride per place, so that candidates of equal weight skip different rounds.
const OFFSET: u64 = (FULL / 2) as u64;
/// How many times the mean weight counts at most. It bounds how many turns a pick takes on average, whatever the weights
/// (gRPC's `kMaxRatio`).
const RATIO_MAX: u64 = 10;

/// Static stride scheduling, which is what gRPC runs as weighted round robin (gRFC A58): in each round, each candidate in
/// turn is picked or skipped, the lighter the more often, as its weight times the round's number crosses a multiple of the
/// heaviest or not. No heap and no lock, one shared counter; and with equal weights nobody is ever skipped.
#[derive(Debug)]
pub(super) struct Stride {
    /// In candidate order, the heaviest at [`FULL`].
    weights: Box<[u16]>,
}

impl Stride {
    /// One after the other.
    pub(super) fn equal(count: usize) -> Self {
        Self { weights: vec![FULL; count].into() }
    }

    /// In proportion to weights; 0 is unknown.
    pub(super) fn weighted(given: impl Iterator<Item = u32> + Clone) -> Self {
        let weights = weights::known(given);
        let Some(heaviest) = weights.iter().copied().max() else { return Self::equal(0) };
        let mean = weights.iter().copied().map(u64::from).sum::<u64>() / weights.len() as u64;
        let full = u64::from(heaviest).min(mean.max(1) * RATIO_MAX);
        let scaled =
            |weight: u32| ((u64::from(weight) * u64::from(FULL) + full / 2) / full).clamp(1, FULL.into()) as u16;
        Self { weights: weights.into_iter().map(scaled).collect() }
    }

    pub(super) fn pick(&self, candidates: &impl Candidates) -> Option<usize> {
        if self.weights.is_empty() {
            return None;
        }
        let count = self.weights.len();
        // Two rounds hold a turn of the heaviest. One turn more, so that a pick that uses them all leaves the next one to
        // begin with the next candidate.
        let turns_max = 2 * count + 1;
        let mut warming = None;
        let mut last = 0;
        for _ in 0..turns_max {
            let turn = candidates.turn();
            let (index, round) = ((turn % count as u64) as usize, turn / count as u64);
            last = index;
            if is_skipped(index, round, self.weights[index]) || candidates.load(index).is_none() {
                continue;
            }
            if takes_turn(candidates, index) {
                return Some(index);
            }
            warming.get_or_insert(index);
        }
        // Everybody warms up, or the only ones with room are light: whoever's turn it was, or comes next.
        warming.or_else(|| walk(candidates, last).next().map(|(index, _)| index))
    }
}

/// Whether a candidate of this weight lets this round go by.
fn is_skipped(index: usize, round: u64, weight: u16) -> bool {
    let full = u64::from(FULL);
    let weight = u64::from(weight);
    // The round modulo the stride gives the same and cannot overflow.
    (weight * (round % full) + index as u64 * OFFSET) % full < full - weight
}
