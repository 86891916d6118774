//! The same endpoint for the same key.

use xxhash_rust::xxh64::xxh64;

use super::picker::Member;
use super::{Candidates, weights};

/// Places on a ring, at least: each of three endpoints then gets its third within a few percent.
const PLACES_MIN: u32 = 1024;
/// Places on a ring, at most, unless there are more endpoints: what gRPC clients build (gRFC A42).
const PLACES_MAX: u32 = 4096;

/// A hash ring with gRFC A42's placement, and bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018).
///
/// Each endpoint has places in proportion to its weight, at the hashes of its name and a number; a key belongs to the next
/// place. Where that endpoint cannot take the call, or has more than its bounded share of the calls in flight, the call
/// goes on to the next place. Endpoints that are known but no candidates now have a part in how many places each one gets,
/// so that one that is lost for a moment moves its own keys and no others.
#[derive(Debug)]
pub(super) struct Ring {
    /// Ascending.
    hashes: Box<[u64]>,
    /// The candidate at each place.
    owners: Box<[u32]>,
    /// Each candidate's share of the calls in flight times the bound factor.
    bounds: Box<[f64]>,
}

impl Ring {
    /// `bound_percent`: how much more than its share of the calls in flight an endpoint takes.
    pub(super) fn new(members: &[Member<'_>], absent: &[Member<'_>], bound_percent: u16) -> Self {
        let weights = weights::known(members.iter().chain(absent).map(|member| member.weight));
        let counts = places(&weights);
        let mut placed: Vec<(u64, u32)> = Vec::with_capacity(counts.iter().map(|count| *count as usize).sum());
        let mut label = String::new();
        for (index, (member, count)) in members.iter().zip(counts).enumerate() {
            for number in 0..count {
                use std::fmt::Write as _;
                label.clear();
                write!(label, "{}_{number}", member.name).expect("a string grows as needed");
                placed.push((xxh64(label.as_bytes(), 0), index as u32));
            }
        }
        placed.sort_unstable();

        let present = &weights[..members.len()];
        let sum: f64 = present.iter().copied().map(f64::from).sum();
        let factor = f64::from(bound_percent.max(100)) / 100.0;
        Self {
            hashes: placed.iter().map(|(hash, _)| *hash).collect(),
            owners: placed.iter().map(|(_, owner)| *owner).collect(),
            bounds: present.iter().map(|weight| f64::from(*weight) / sum * factor).collect(),
        }
    }

    /// The candidate for `key`; without one, for a random place.
    pub(super) fn pick(&self, candidates: &impl Candidates, key: Option<u64>) -> Option<usize> {
        let key = key.unwrap_or_else(|| candidates.draw());
        let start = self.hashes.partition_point(|hash| *hash < key);
        let (before, after) = self.owners.split_at(start);
        // With the call that is being placed; and what rounding adds to a whole number must not make it the next one.
        let in_flight = f64::from(candidates.in_flight()) + 1.0;
        let bound = |index: usize| (self.bounds[index] * in_flight - 1e-9).ceil();
        let mut overloaded = None;
        let mut asked = Asked::nobody(self.bounds.len());
        for owner in after.iter().chain(before).copied() {
            if asked.are_all() {
                break;
            }
            let index = owner as usize;
            if !asked.is_new(index) {
                continue;
            }
            let Some(load) = candidates.load(index) else { continue };
            if f64::from(load.in_flight) < bound(index) {
                return Some(index);
            }
            overloaded.get_or_insert(index);
        }
        // All that is left is above its bound: the others cannot take this call.
        overloaded
    }
}

/// Which candidates a pick has asked: it goes on from place to place until one takes the call, or all have been asked. With
/// everybody full that is a look at each, and not at each of its places.
struct Asked {
    /// One for each of the first candidates; of a service with more than these the others are asked at each of their places,
    /// of which they have but a few.
    bits: [u64; 16],
    left: usize,
}

impl Asked {
    fn nobody(candidates: usize) -> Self {
        Self { bits: [0; 16], left: candidates }
    }

    fn are_all(&self) -> bool {
        self.left == 0
    }

    /// Whether it was not asked before. From now on it was.
    fn is_new(&mut self, index: usize) -> bool {
        let Some(bits) = self.bits.get_mut(index / 64) else { return true };
        let bit = 1 << (index % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        self.left -= usize::from(is_new);
        is_new
    }
}

/// How many places each weight gets: gRFC A42's, so that the lightest has a whole number of them, and at least one for
/// each however many there are.
fn places(weights: &[u32]) -> Vec<u32> {
    let sum: f64 = weights.iter().copied().map(f64::from).sum();
    let Some(lightest) = weights.iter().copied().min() else { return Vec::new() };
    let lightest = f64::from(lightest) / sum;
    let most = f64::from(PLACES_MAX.max(weights.len() as u32));
    let scale = ((lightest * f64::from(PLACES_MIN)).ceil() / lightest).min(most);
    weights.iter().map(|weight| (f64::from(*weight) / sum * scale).round().max(1.0) as u32).collect()
}
