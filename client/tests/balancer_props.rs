//! The balancer against a naive model.

use std::cell::RefCell;

use mesh_client::balancer::{Candidates, LeastRequest, Load, Preference, pickable};
use proptest::prelude::*;

/// Candidates that remember who was looked at; `None` cannot take a call.
struct Observed {
    loads: Vec<Option<Load>>,
    looks: RefCell<Vec<usize>>,
}

impl Observed {
    fn new(loads: Vec<Option<Load>>) -> Self {
        Self { loads, looks: RefCell::default() }
    }

    fn equal(in_flight: &[u32]) -> Self {
        Self::new(in_flight.iter().map(|in_flight| Some(Load { in_flight: *in_flight, weight: 100 })).collect())
    }
}

impl Candidates for Observed {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn load(&self, index: usize) -> Option<Load> {
        self.looks.borrow_mut().push(index);
        self.loads[index]
    }

    fn latency(&self, _: usize) -> f32 {
        1.0
    }

    fn warmth(&self, _: usize) -> f32 {
        1.0
    }

    fn in_flight(&self) -> u32 {
        self.loads.iter().flatten().map(|load| load.in_flight).sum()
    }

    fn turn(&self) -> u64 {
        self.looks.borrow().len() as u64
    }

    fn draw(&self) -> u64 {
        0
    }
}

/// A uniform sequence: splitmix64.
fn draws(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |step: u64| {
        let mut bits = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

fn loads() -> impl Strategy<Value = Vec<Option<Load>>> {
    let load = (0_u32..50, 0_u16..400).prop_map(|(in_flight, weight)| Load { in_flight, weight });
    prop::collection::vec(prop::option::weighted(0.7, load), 0..40)
}

fn picks(candidates: &Observed, seed: u64, calls: usize) -> Vec<usize> {
    let mut picks = vec![0; candidates.loads.len()];
    for draw in draws(seed).take(calls) {
        picks[LeastRequest.pick(candidates, draw).expect("everybody can take a call")] += 1;
    }
    picks
}

proptest! {
    /// Whoever is picked can take the call, and somebody is picked whenever anybody can.
    #[test]
    fn only_those_who_can_take_a_call_are_picked(loads in loads(), draw: u64) {
        let candidates = Observed::new(loads);
        match LeastRequest.pick(&candidates, draw) {
            Some(index) => prop_assert!(candidates.loads[index].is_some()),
            None => prop_assert!(candidates.loads.iter().all(Option::is_none)),
        }
    }

    #[test]
    fn two_different_candidates_are_compared_and_the_less_busy_one_wins(
        in_flight in prop::collection::vec(0_u32..1000, 2..200),
        draw: u64,
    ) {
        let candidates = Observed::equal(&in_flight);
        let picked = LeastRequest.pick(&candidates, draw).unwrap();
        let looks = candidates.looks.borrow();
        prop_assert_eq!(looks.len(), 2);
        prop_assert_ne!(looks[0], looks[1]);
        prop_assert!(looks.contains(&picked));
        prop_assert_eq!(in_flight[picked], looks.iter().map(|look| in_flight[*look]).min().unwrap());
    }

    #[test]
    fn of_two_the_less_busy_one_always_wins(busy in 1_u32..1000, less in 0_u32..1000, draw: u64) {
        prop_assume!(less < busy);
        prop_assert_eq!(LeastRequest.pick(&Observed::equal(&[busy, less]), draw), Some(1));
        prop_assert_eq!(LeastRequest.pick(&Observed::equal(&[less, busy]), draw), Some(0));
    }

    /// In flight per weight, as the naive model has it: the one that would be less busy with this call on top.
    #[test]
    fn busy_candidates_are_compared_by_calls_per_weight(
        one in (1_u32..1000, 1_u16..1000),
        other in (1_u32..1000, 1_u16..1000),
        draw: u64,
    ) {
        let load = |(in_flight, weight)| Some(Load { in_flight, weight });
        let cost = |(in_flight, weight): (u32, u16)| f64::from(in_flight + 1) / f64::from(weight);
        prop_assume!((cost(one) - cost(other)).abs() > 1e-9);
        let best = if cost(one) < cost(other) { 0 } else { 1 };
        prop_assert_eq!(LeastRequest.pick(&Observed::new(vec![load(one), load(other)]), draw), Some(best));
    }

    /// Equally busy, every candidate gets its share: within five standard deviations of the binomial.
    #[test]
    fn equal_candidates_are_picked_equally_often(count in 1_usize..60, busy in 0_u32..3, seed: u64) {
        const CALLS: usize = 20_000;
        let candidates = Observed::equal(&vec![busy; count]);
        let share = CALLS as f64 / count as f64;
        let deviation = (share * (1.0 - 1.0 / count as f64)).sqrt();
        for picked in picks(&candidates, seed, CALLS) {
            prop_assert!((picked as f64 - share).abs() <= 5.0 * deviation + 1.0, "{} of {}", picked, share);
        }
    }

    /// A quiet service still honours weights: of two idle candidates each gets its part.
    #[test]
    fn two_idle_candidates_share_by_weight(one in 1_u16..1000, other in 1_u16..1000, seed: u64) {
        const CALLS: usize = 20_000;
        let idle = |weight| Some(Load { in_flight: 0, weight });
        let picked = picks(&Observed::new(vec![idle(one), idle(other)]), seed, CALLS);
        let share = CALLS as f64 * f64::from(one) / f64::from(one + other);
        prop_assert!((picked[0] as f64 - share).abs() <= 5.0 * (share.min(CALLS as f64 - share)).sqrt() + 2.0);
    }

    /// Calls that never end pile up evenly: two choices keep the fullest within a few calls of the average, where one
    /// choice would let it run away.
    #[test]
    fn calls_that_stay_pile_up_evenly(count in 2_usize..100, seed: u64) {
        let mut in_flight = vec![0_u32; count];
        for draw in draws(seed).take(count * 50) {
            let picked = LeastRequest.pick(&Observed::equal(&in_flight), draw).unwrap();
            in_flight[picked] += 1;
        }
        prop_assert!(in_flight.iter().all(|calls| *calls <= 55), "{:?}", in_flight);
    }

    #[test]
    fn the_pickable_ones_are_all_of_the_best_kind(
        wanted in prop::collection::vec(
            prop_oneof![Just(Preference::Preferred), Just(Preference::Spare), Just(Preference::Never)], 0..50),
    ) {
        let all = |kind| -> Vec<usize> { (0..wanted.len()).filter(|index| wanted[*index] == kind).collect() };
        let (preferred, spare) = (all(Preference::Preferred), all(Preference::Spare));
        prop_assert_eq!(pickable(&wanted), if preferred.is_empty() { spare } else { preferred });
    }
}
