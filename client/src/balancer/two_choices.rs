//! The better of two drawn at random.
//!
//! Within a constant of the best choice (Mitzenmacher 2001), at the price of two reads, and without the herd that a global
//! minimum attracts.

use super::{Candidates, walk};

/// By what two candidates are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Calls in flight per weight (gRFC A48 with a choice count of two).
    InFlight,
    /// Expected time to an answer: latency times calls in flight per weight.
    Latency,
}

/// Latencies that differ by less than this factor are the same where nothing else tells two candidates apart: on a quiet
/// service whoever is faster by a hair would otherwise get every call.
const NOISE: f32 = 2.0;

/// What a candidate costs, in parts: they are multiplied only when two are compared.
#[derive(Clone, Copy)]
struct Cost {
    latency: f32,
    in_flight: u32,
    /// Weight times warmth.
    pull: f32,
}

impl Measure {
    /// The index of the candidate to call, or `None` when none can take a call.
    pub(super) fn pick(self, candidates: &impl Candidates) -> Option<usize> {
        let count = candidates.count();
        if count < 2 {
            return (count == 1 && candidates.load(0).is_some()).then_some(0);
        }
        let draw = candidates.draw();
        let (first, second) =
            if count == 2 { ((draw >> 63) as usize, (!draw >> 63) as usize) } else { two_of(count, draw) };
        match (self.cost(candidates, first), self.cost(candidates, second)) {
            (Some(one), Some(other)) => Some(if prefer_first(one, other, draw as u16) { first } else { second }),
            (Some(_), None) => Some(first),
            (None, Some(_)) => Some(second),
            (None, None) => self.best(candidates, first),
        }
    }

    #[inline]
    fn cost(self, candidates: &impl Candidates, index: usize) -> Option<Cost> {
        let load = candidates.load(index)?;
        Some(Cost {
            latency: match self {
                Self::InFlight => 1.0,
                Self::Latency => candidates.latency(index),
            },
            in_flight: load.in_flight,
            pull: f32::from(load.weight.max(1)) * candidates.warmth(index),
        })
    }

    /// When neither of those drawn can take a call: the best of all, looking from where the draw fell.
    #[cold]
    fn best(self, candidates: &impl Candidates, start: usize) -> Option<usize> {
        walk(candidates, start)
            .filter_map(|(index, _)| Some((index, self.cost(candidates, index)?)))
            .reduce(|best, next| if prefer_first(best.1, next.1, 0) { best } else { next })
            .map(|(index, _)| index)
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
fn prefer_first(first: Cost, second: Cost, toss: u16) -> bool {
    let alike = first.latency <= second.latency * NOISE && second.latency <= first.latency * NOISE;
    if first.in_flight == 0 && second.in_flight == 0 && alike {
        return f32::from(toss) * (first.pull + second.pull) < first.pull * 65_536.0;
    }
    let busy = |cost: Cost| cost.latency * (cost.in_flight as f32 + 1.0);
    busy(first) * second.pull <= busy(second) * first.pull
}
