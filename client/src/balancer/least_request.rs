//! Power of two choices over calls in flight (gRFC A48 with a choice count of two).

use super::{Candidates, Load};

/// Draws two different candidates and takes the less busy one: within a constant of the best choice, at the price of two
/// reads, and without the herd that a global minimum attracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastRequest;

impl LeastRequest {
    /// The index of the candidate to call, or `None` when none can take a call. `draw` is 64 uniform bits.
    pub fn pick(&self, candidates: &impl Candidates, draw: u64) -> Option<usize> {
        let (first, second) = match candidates.count() {
            0 => return None,
            1 => return candidates.load(0).map(|_| 0),
            2 => ((draw >> 63) as usize, (!draw >> 63) as usize),
            count => two_of(count, draw),
        };
        match (candidates.load(first), candidates.load(second)) {
            (Some(one), Some(other)) => Some(if prefer_first(one, other, draw as u16) { first } else { second }),
            (Some(_), None) => Some(first),
            (None, Some(_)) => Some(second),
            (None, None) => least_busy(candidates, first),
        }
    }
}

/// Two different indices below `count`, uniform over all pairs. 24 bits each: the bias is below `count` / 2^24.
fn two_of(count: usize, draw: u64) -> (usize, usize) {
    let below = |bits: u64, bound: usize| (((bits & 0xff_ffff) * bound as u64) >> 24) as usize;
    let first = below(draw >> 40, count);
    let second = below(draw >> 16, count - 1);
    (first, if second >= first { second + 1 } else { second })
}

/// Whether the first of two drawn candidates is the better one. `toss` decides between two idle ones, by their weights:
/// comparing those alone would starve the lighter one for as long as the service is quiet.
fn prefer_first(first: Load, second: Load, toss: u16) -> bool {
    let weight = |load: Load| u64::from(load.weight.max(1));
    if first.in_flight == 0 && second.in_flight == 0 {
        return u64::from(toss) * (weight(first) + weight(second)) < weight(first) << 16;
    }
    let busy = |load: Load| u64::from(load.in_flight) + 1;
    busy(first) * weight(second) <= busy(second) * weight(first)
}

/// The slow path when both drawn candidates are full: a walk over all of them, starting where the draw fell.
fn least_busy(candidates: &impl Candidates, start: usize) -> Option<usize> {
    let count = candidates.count();
    let walk = (0..count).map(|step| (start + step) % count);
    walk.filter_map(|index| candidates.load(index).map(|load| (index, load)))
        .reduce(|best, next| if prefer_first(best.1, next.1, 0) { best } else { next })
        .map(|(index, _)| index)
}
