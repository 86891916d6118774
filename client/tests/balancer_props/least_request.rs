//! The less busy of two.

use mesh_client::Balancer;
use proptest::prelude::*;

use crate::model::{Endpoint, Model, is_likely, picker};

fn busy(in_flight: &[u32], seed: u64) -> Model {
    Model::new(
        in_flight.iter().map(|in_flight| Endpoint { in_flight: *in_flight, ..Endpoint::default() }).collect(),
        seed,
    )
}

fn pick(model: &Model) -> usize {
    picker(&Balancer::LeastRequest, model, None).pick(model, None).expect("somebody can take a call")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_different_candidates_are_compared_and_the_less_busy_one_wins(
        in_flight in prop::collection::vec(0_u32..1000, 2..200),
        seed: u64,
    ) {
        let model = busy(&in_flight, seed);
        let picked = pick(&model);
        let looks = model.looks.borrow();
        prop_assert_eq!(looks.len(), 2);
        prop_assert_ne!(looks[0], looks[1]);
        prop_assert!(looks.contains(&picked));
        prop_assert_eq!(in_flight[picked], looks.iter().map(|look| in_flight[*look]).min().unwrap());
    }

    #[test]
    fn of_two_the_less_busy_one_always_wins(busier in 1_u32..1000, less in 0_u32..1000, seed: u64) {
        prop_assume!(less < busier);
        prop_assert_eq!(pick(&busy(&[busier, less], seed)), 1);
        prop_assert_eq!(pick(&busy(&[less, busier], seed)), 0);
    }

    /// In flight per weight, as the naive model has it: the one that would be less busy with this call on top.
    #[test]
    fn busy_candidates_are_compared_by_calls_per_weight(
        one in (1_u32..1000, 1_u16..1000),
        other in (1_u32..1000, 1_u16..1000),
        seed: u64,
    ) {
        let endpoint = |(in_flight, weight)| Endpoint { in_flight, weight, ..Endpoint::default() };
        let cost = |(in_flight, weight): (u32, u16)| f64::from(in_flight + 1) / f64::from(weight);
        prop_assume!((cost(one) - cost(other)).abs() > 1e-9);
        let best = if cost(one) < cost(other) { 0 } else { 1 };
        prop_assert_eq!(pick(&Model::new(vec![endpoint(one), endpoint(other)], seed)), best);
    }

    /// Equally busy, every candidate gets its share.
    #[test]
    fn equal_candidates_are_picked_equally_often(count in 1_usize..60, calls_each in 0_u32..3, seed: u64) {
        const CALLS: usize = 20_000;
        let model = busy(&vec![calls_each; count], seed);
        for picked in model.picks(&picker(&Balancer::LeastRequest, &model, None), CALLS) {
            prop_assert!(is_likely(picked, CALLS, 1.0 / count as f64), "{} of {}", picked, CALLS);
        }
    }

    /// A quiet service still honours weights and warmth: of two idle candidates each gets its part.
    #[test]
    fn two_idle_candidates_share_by_weight(one in 1_u16..1000, other in 1_u16..1000, warmth in 0.1_f32..=1.0, seed: u64) {
        const CALLS: usize = 20_000;
        let mut model = Model::weighted(&[one, other], seed);
        model.endpoints[0].warmth = warmth;
        let picked = model.picks(&picker(&Balancer::LeastRequest, &model, None), CALLS);
        let pull = f64::from(one) * f64::from(warmth);
        prop_assert!(is_likely(picked[0], CALLS, pull / (pull + f64::from(other))), "{:?}", picked);
    }

    /// Calls that never end pile up evenly: two choices keep the fullest within a few calls of the average, where one
    /// choice would let it run away.
    #[test]
    fn calls_that_stay_pile_up_evenly(count in 2_usize..100, seed: u64) {
        let mut model = Model::equal(count, seed);
        let picker = picker(&Balancer::LeastRequest, &model, None);
        for _ in 0..count * 50 {
            let picked = picker.pick(&model, None).unwrap();
            model.endpoints[picked].in_flight += 1;
        }
        prop_assert!(model.endpoints.iter().all(|endpoint| endpoint.in_flight <= 55));
    }
}
