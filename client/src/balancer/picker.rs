//! The choice among the candidates of one snapshot.

use super::alias::Alias;
use super::ring::Ring;
use super::select::Zone;
use super::stride::Stride;
use super::two_choices::Measure;
use super::{Candidates, Load};
use crate::policy::Balancer;

/// An endpoint as a balancer is told of it beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its address: what places it on a ring.
    pub name: &'a str,
    /// How much it can take, relative to its siblings: what its load report says, or what it registered with. 0: not known.
    pub weight: u32,
    /// Where it is.
    pub zone: Zone,
}

/// Which candidate a call goes to. Immutable; it is made anew with each change of the candidates.
#[derive(Debug)]
pub struct Picker {
    pools: Pools,
}

/// The candidates, in one or two parts.
#[derive(Debug)]
enum Pools {
    One(Rule),
    ByZone {
        /// For the first `own_count` candidates.
        own: Rule,
        own_count: usize,
        /// What stays in the own zone, in parts of 2^32: all of it or less.
        own_share: u64,
        /// For the others.
        other: Rule,
    },
}

/// How one is chosen.
#[derive(Debug)]
enum Rule {
    TwoChoices(Measure),
    Stride(Stride),
    Alias(Alias),
    Ring(Ring),
}

/// All calls.
const WHOLE: u64 = 1 << 32;

impl Picker {
    /// A picker for `members`, in the order of the candidates; those of the own zone come first where `own_share`, the part
    /// of the calls that stays there, is given ([`select`](super::select()) orders them so). `absent` are the endpoints that
    /// are known but no candidates now: they keep a ring's other keys where they are.
    #[must_use]
    pub fn new(balancer: &Balancer, members: &[Member<'_>], absent: &[Member<'_>], own_share: Option<f32>) -> Self {
        let own_count = members.iter().take_while(|member| member.zone == Zone::Own).count();
        let pools = match own_share {
            Some(share) if 0 < own_count && own_count < members.len() => {
                let absent_in =
                    |zone: Zone| absent.iter().copied().filter(|member| member.zone == zone).collect::<Vec<_>>();
                let (own, other) = members.split_at(own_count);
                Pools::ByZone {
                    own: Rule::new(balancer, own, &absent_in(Zone::Own)),
                    own_count,
                    own_share: (f64::from(share.clamp(0.0, 1.0)) * WHOLE as f64) as u64,
                    other: Rule::new(balancer, other, &absent_in(Zone::Other)),
                }
            }
            _ => Pools::One(Rule::new(balancer, members, absent)),
        };
        Self { pools }
    }

    /// The index of the candidate that gets a call with this key, or `None` when none can take a call.
    pub fn pick(&self, candidates: &impl Candidates, key: Option<u64>) -> Option<usize> {
        match &self.pools {
            Pools::One(rule) => rule.pick(candidates, key),
            Pools::ByZone { own, own_count, own_share, other } => {
                let own_part = *own_share as f32 / WHOLE as f32;
                let own_pool = Part { all: candidates, start: 0, count: *own_count, calls: own_part };
                let other_count = candidates.count() - own_count;
                let other_pool = Part { all: candidates, start: *own_count, count: other_count, calls: 1.0 - own_part };
                let stays = *own_share == WHOLE || {
                    // Equal keys must agree on the zone; the bits that place them on a ring must not decide it.
                    let die = key.map_or_else(|| candidates.draw(), |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    die >> 32 < *own_share
                };
                let pick_own = || own.pick(&own_pool, key);
                let pick_other = || Some(own_count + other.pick(&other_pool, key)?);
                if stays { pick_own().or_else(pick_other) } else { pick_other().or_else(pick_own) }
            }
        }
    }
}

impl Rule {
    fn new(balancer: &Balancer, members: &[Member<'_>], absent: &[Member<'_>]) -> Self {
        let weights = members.iter().map(|member| member.weight);
        match balancer {
            Balancer::PeakEwma => Self::TwoChoices(Measure::Latency),
            Balancer::LeastRequest => Self::TwoChoices(Measure::InFlight),
            Balancer::RoundRobin => Self::Stride(Stride::equal(members.len())),
            Balancer::WeightedRoundRobin => Self::Stride(Stride::weighted(weights)),
            Balancer::Random => Self::Alias(Alias::new(weights)),
            Balancer::RingHash(ring) => Self::Ring(Ring::new(members, absent, ring.bound_percent)),
        }
    }

    fn pick(&self, candidates: &impl Candidates, key: Option<u64>) -> Option<usize> {
        match self {
            Self::TwoChoices(measure) => measure.pick(candidates),
            Self::Stride(stride) => stride.pick(candidates),
            Self::Alias(alias) => alias.pick(candidates),
            Self::Ring(ring) => ring.pick(candidates, key),
        }
    }
}

/// Some of the candidates, as if they were all.
struct Part<'a, C> {
    all: &'a C,
    start: usize,
    count: usize,
    /// The part of all calls that goes here.
    calls: f32,
}

impl<C: Candidates> Candidates for Part<'_, C> {
    fn count(&self) -> usize {
        self.count
    }

    fn load(&self, index: usize) -> Option<Load> {
        self.all.load(self.start + index)
    }

    fn latency(&self, index: usize) -> f32 {
        self.all.latency(self.start + index)
    }

    fn warmth(&self, index: usize) -> f32 {
        self.all.warmth(self.start + index)
    }

    fn in_flight(&self) -> u32 {
        (self.all.in_flight() as f32 * self.calls).ceil() as u32
    }

    fn turn(&self) -> u64 {
        self.all.turn()
    }

    fn draw(&self) -> u64 {
        self.all.draw()
    }
}
