//! Candidates that are plain values.

use std::cell::{Cell, RefCell};

use mesh_client::balancer::{Candidates, Load, Member, Picker, Zone};
use mesh_client::{Balancer, RingHash};
use proptest::prelude::*;

/// One endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) in_flight: u32,
    pub(crate) weight: u16,
    /// Seconds.
    pub(crate) latency: f32,
    pub(crate) warmth: f32,
    /// Whether it can take a call.
    pub(crate) open: bool,
    pub(crate) zone: Zone,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { in_flight: 0, weight: 100, latency: 0.001, warmth: 1.0, open: true, zone: Zone::Other }
    }
}

/// Endpoints, the sequences a picker draws from, and who was looked at.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) looks: RefCell<Vec<usize>>,
    pub(crate) turn: Cell<u64>,
    state: Cell<u64>,
}

impl Model {
    pub(crate) fn new(endpoints: Vec<Endpoint>, seed: u64) -> Self {
        Self { endpoints, looks: RefCell::default(), turn: Cell::new(seed >> 32), state: Cell::new(seed) }
    }

    pub(crate) fn equal(count: usize, seed: u64) -> Self {
        Self::new(vec![Endpoint::default(); count], seed)
    }

    pub(crate) fn weighted(weights: &[u16], seed: u64) -> Self {
        Self::new(weights.iter().map(|weight| Endpoint { weight: *weight, ..Endpoint::default() }).collect(), seed)
    }

    /// How often each one is picked; the calls end at once.
    pub(crate) fn picks(&self, picker: &Picker, calls: usize) -> Vec<usize> {
        let mut picks = vec![0; self.endpoints.len()];
        for _ in 0..calls {
            picks[picker.pick(self, None).expect("somebody can take a call")] += 1;
        }
        picks
    }
}

impl Candidates for Model {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn load(&self, index: usize) -> Option<Load> {
        self.looks.borrow_mut().push(index);
        let Endpoint { in_flight, weight, open, .. } = self.endpoints[index];
        open.then_some(Load { in_flight, weight })
    }

    fn latency(&self, index: usize) -> f32 {
        self.endpoints[index].latency
    }

    fn warmth(&self, index: usize) -> f32 {
        self.endpoints[index].warmth
    }

    fn in_flight(&self) -> u32 {
        self.endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
    }

    fn turn(&self) -> u64 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Splitmix64, as in the crate.
    fn draw(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// A picker over all of a model's endpoints.
pub(crate) fn picker(balancer: &Balancer, model: &Model, own_share: Option<f32>) -> Picker {
    let names = names(model.endpoints.len());
    Picker::new(balancer, &members(&names, &model.endpoints), &[], own_share)
}

pub(crate) fn members<'a>(names: &'a [String], endpoints: &[Endpoint]) -> Vec<Member<'a>> {
    let member = |(name, endpoint): (&'a String, &Endpoint)| Member {
        name,
        weight: endpoint.weight.into(),
        zone: endpoint.zone,
    };
    names.iter().zip(endpoints).map(member).collect()
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("10.0.{}.{}:443", index / 250, index % 250)).collect()
}

pub(crate) fn balancers() -> impl Strategy<Value = Balancer> {
    prop_oneof![
        Just(Balancer::PeakEwma),
        Just(Balancer::LeastRequest),
        Just(Balancer::RoundRobin),
        Just(Balancer::WeightedRoundRobin),
        Just(Balancer::Random),
        (100_u16..1000).prop_map(|bound_percent| Balancer::RingHash(RingHash { bound_percent, key_header: None })),
    ]
}

/// Whether a count of picks is what chance allows: within six standard deviations of the binomial, so that none of the
/// hundred thousand checks of a run is expected to fail by chance.
pub(crate) fn is_likely(picked: usize, calls: usize, share: f64) -> bool {
    let expected = calls as f64 * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    (picked as f64 - expected).abs() <= 6.0 * deviation + 2.0
}
