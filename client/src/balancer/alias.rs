//! Random by weight.

use super::{Candidates, takes_turn, walk, weights};

/// Vose's alias method: any distribution over n candidates as n columns of equal height, each shared by at most two of
/// them, so that one draw and two reads choose by weight.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// The part of the column, of 2^32, that belongs to the candidate of the same index.
    own: u32,
    /// Whose the rest is.
    other: u32,
}

impl Alias {
    /// In proportion to weights; 0 is unknown.
    pub(super) fn new(given: impl Iterator<Item = u32> + Clone) -> Self {
        const WHOLE: u64 = 1 << 32;
        let weights = weights::known(given);
        let count = weights.len();
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        let mut columns: Vec<Column> = (0..count as u32).map(|index| Column { own: u32::MAX, other: index }).collect();

        // Heights in parts of 2^32 of a column; those below one are filled up from those above.
        let height =
            |weight: u32| (u128::from(weight) * u128::from(WHOLE) * count as u128 / u128::from(sum.max(1))) as u64;
        let mut heights: Vec<u64> = weights.into_iter().map(height).collect();
        let (mut below, mut above): (Vec<usize>, Vec<usize>) = (0..count).partition(|index| heights[*index] < WHOLE);
        while let (Some(low), Some(high)) = (below.pop(), above.last().copied()) {
            columns[low] = Column { own: heights[low] as u32, other: high as u32 };
            heights[high] -= WHOLE - heights[low];
            if heights[high] < WHOLE {
                above.pop();
                below.push(high);
            }
        }
        Self { columns: columns.into() }
    }

    pub(super) fn pick(&self, candidates: &impl Candidates) -> Option<usize> {
        /// After so many draws of somebody who cannot take the call, or is warming up and lets it pass, whoever comes next
        /// gets it.
        const DRAWS_MAX: usize = 8;
        if self.columns.is_empty() {
            return None;
        }
        let mut index = 0;
        for _ in 0..DRAWS_MAX {
            let draw = candidates.draw();
            index = self.choose(draw);
            if candidates.load(index).is_some() && takes_turn(candidates, index) {
                return Some(index);
            }
        }
        walk(candidates, index).next().map(|(index, _)| index)
    }

    /// The upper half of the bits draws a column, the lower half a height in it.
    fn choose(&self, draw: u64) -> usize {
        let column = (((draw >> 32) * self.columns.len() as u64) >> 32) as usize;
        let Column { own, other } = self.columns[column];
        if (draw as u32) < own { column } else { other as usize }
    }
}
