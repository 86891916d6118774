//! Which endpoint gets the next call.
//!
//! Pure: candidates, their load and a random draw go in, an index comes out. Nothing here waits, reads a clock or knows
//! what an endpoint is made of, so that a balancer is tested against a naive model and simulated at any size.

pub mod ejection;
mod least_request;
mod preference;

pub use least_request::LeastRequest;
pub use preference::{Preference, pickable};

/// The candidates of one pick.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;

    /// How busy the candidate at `index` is now; `None` while it cannot take a call.
    fn load(&self, index: usize) -> Option<Load>;
}

/// How busy a candidate is, and how much it is meant to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Calls between their pick and their trailers.
    pub in_flight: u32,
    /// Share relative to its siblings; 0 counts as 1.
    pub weight: u16,
}
