//! Which endpoint gets the next call.
//!
//! Pure: candidates, their load, a time and a random draw go in, an index comes out. Nothing here waits, reads a clock or
//! knows what an endpoint is made of, so that a balancer is tested against a naive model and simulated at any size.
//!
//! In the order in which a service's endpoints meet it: [`subset()`] says which of them this caller connects to, [`select()`]
//! which of those are candidates now, and a [`Picker`], made once for each such set, which candidate a call goes to.
//! [`Ewma`] and [`warmth`] are what it weighs. A pick allocates nothing, takes no lock, and reads a handful of candidates
//! however many there are.

mod alias;
pub mod ejection;
mod ewma;
mod picker;
mod ring;
mod select;
mod slow_start;
mod stride;
mod subset;
mod two_choices;
mod weights;

pub use ewma::Ewma;
pub use picker::{Member, Picker};
pub use select::{Alarm, Fitness, Seen, Selection, Zone, select};
pub use slow_start::warmth;
pub use subset::subset;
pub use weights::{Capacity, effective_weights};

/// The candidates of one pick, as they are now.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;

    /// How busy the candidate at `index` is; `None` while it cannot take a call: its connections are full, this call was
    /// tried there, or the one call that may try it is under way.
    fn load(&self, index: usize) -> Option<Load>;

    /// How long it takes until it begins to answer, in seconds: its [`Ewma`], projected to now.
    fn latency(&self, index: usize) -> f32;

    /// What part of its weight it is given while it warms up, in (0, 1]: see [`warmth`].
    fn warmth(&self, index: usize) -> f32;

    /// Calls in flight over all candidates.
    fn in_flight(&self) -> u32;

    /// The next number of a sequence that goes on when the candidates change, so that a round does not begin anew with
    /// each change.
    fn turn(&self) -> u64;

    /// 64 uniform bits.
    fn draw(&self) -> u64;
}

/// How busy a candidate is, and how much it is meant to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Calls between their pick and their trailers.
    pub in_flight: u32,
    /// Share relative to its siblings; 0 counts as 1.
    pub weight: u16,
}

/// The candidates that can take a call, beginning at `start` and going round once.
fn walk(candidates: &impl Candidates, start: usize) -> impl Iterator<Item = (usize, Load)> {
    let count = candidates.count();
    (start..count).chain(0..start.min(count)).filter_map(|index| Some((index, candidates.load(index)?)))
}

/// Whether a candidate takes a turn that is its own: while it warms up, it lets the others have that part of them.
fn takes_turn(candidates: &impl Candidates, index: usize) -> bool {
    let warmth = candidates.warmth(index);
    // 24 bits fill an `f32`'s mantissa: the quotient is uniform in [0, 1).
    warmth >= 1.0 || (candidates.draw() >> 40) as f32 / (1_u32 << 24) as f32 <= warmth
}
