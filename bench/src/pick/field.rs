//! Endpoints as a balancer sees them, without any connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mesh_client::balancer::{Candidates, Ewma, Load};

/// Calls in flight all the time: the oldest one ends when a new one is picked for.
const IN_FLIGHT: usize = 64;
/// Picks in a millisecond of the field's time.
const PICKS_PER_MS: u64 = 20;

/// What calls write to an endpoint, on cache lines that it shares with no other.
#[repr(align(128))]
struct Hot {
    in_flight: AtomicU32,
    picks: AtomicU32,
    latency: AtomicU64,
}

/// All endpoints.
pub(super) struct Field {
    endpoints: Vec<Arc<Hot>>,
    in_flight: VecDeque<usize>,
    turn: AtomicU64,
    draws: AtomicU64,
}

impl Field {
    pub(super) fn new(count: usize) -> Self {
        let field = Self {
            endpoints: Vec::with_capacity(count),
            in_flight: VecDeque::with_capacity(IN_FLIGHT + 1),
            turn: AtomicU64::new(0),
            draws: AtomicU64::new(1),
        };
        // Between one and nine milliseconds, so that latencies decide something.
        let endpoint = |_| {
            let latency = Ewma::new(Duration::from_micros(1_000 + field.draw() % 8_000), 0);
            let latency = AtomicU64::new(latency.to_bits());
            Arc::new(Hot { in_flight: AtomicU32::new(0), picks: AtomicU32::new(0), latency })
        };
        let endpoints = (0..count).map(endpoint).collect();
        Self { endpoints, ..field }
    }

    /// Where a call belongs on a ring.
    pub(super) fn key(&self) -> u64 {
        mix(self.turn.load(Ordering::Relaxed))
    }

    /// A call went to this one; the oldest call is over.
    pub(super) fn picked(&mut self, index: usize) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        let endpoint = &self.endpoints[index];
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.picks.fetch_add(1, Ordering::Relaxed);
        self.in_flight.push_back(index);
        if self.in_flight.len() > IN_FLIGHT
            && let Some(over) = self.in_flight.pop_front()
        {
            self.endpoints[over].in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many endpoints were picked.
    pub(super) fn reached(&self) -> u32 {
        let reached = self.endpoints.iter().filter(|endpoint| endpoint.picks.load(Ordering::Relaxed) > 0);
        u32::try_from(reached.count()).unwrap_or(u32::MAX)
    }
}

impl Candidates for Field {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn load(&self, index: usize) -> Option<Load> {
        Some(Load { in_flight: self.endpoints[index].in_flight.load(Ordering::Relaxed), weight: 100 })
    }

    fn latency(&self, index: usize) -> f32 {
        let now_ms = (self.turn.load(Ordering::Relaxed) / PICKS_PER_MS) as u32;
        Ewma::from_bits(self.endpoints[index].latency.load(Ordering::Relaxed)).project(now_ms)
    }

    fn warmth(&self, _index: usize) -> f32 {
        1.0
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.len() as u32
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    fn draw(&self) -> u64 {
        mix(self.draws.fetch_add(1, Ordering::Relaxed))
    }
}

/// splitmix64: what the mesh draws with, too.
fn mix(number: u64) -> u64 {
    let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
