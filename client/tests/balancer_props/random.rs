//! Random by weight.

use mesh_client::Balancer;
use proptest::prelude::*;

use crate::model::{Model, is_likely, picker};

const CALLS: usize = 20_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(1_u16.., 2..60), seed: u64) {
        let model = Model::weighted(&weights, seed);
        let picks = model.picks(&picker(&Balancer::Random, &model, None), CALLS);
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        for (picked, weight) in picks.iter().zip(&weights) {
            prop_assert!(is_likely(*picked, CALLS, f64::from(*weight) / sum), "{:?} for {:?}", picks, weights);
        }
    }

    #[test]
    fn without_weights_everybody_is_as_likely(count in 1_usize..60, seed: u64) {
        let model = Model::weighted(&vec![0; count], seed);
        for picked in model.picks(&picker(&Balancer::Random, &model, None), CALLS) {
            prop_assert!(is_likely(picked, CALLS, 1.0 / count as f64), "{} of {}", picked, CALLS);
        }
    }

    #[test]
    fn who_warms_up_is_that_much_less_likely(count in 2_usize..20, warmth in 0.1_f32..0.9, seed: u64) {
        let mut model = Model::equal(count, seed);
        model.endpoints[0].warmth = warmth;
        let picks = model.picks(&picker(&Balancer::Random, &model, None), CALLS);
        let share = f64::from(warmth) / (f64::from(warmth) + (count - 1) as f64);
        // Of two, one in 2^8 picks ends the draws with whoever comes next.
        let slack = CALLS / 256;
        prop_assert!(
            is_likely(picks[0], CALLS, share) || is_likely(picks[0].saturating_sub(slack), CALLS, share),
            "{:?} for {}", picks, share
        );
    }

    #[test]
    fn who_cannot_take_a_call_leaves_its_share_to_the_others(count in 3_usize..20, seed: u64) {
        let mut model = Model::equal(count, seed);
        model.endpoints[0].open = false;
        let picks = model.picks(&picker(&Balancer::Random, &model, None), CALLS);
        prop_assert_eq!(picks[0], 0);
        for picked in &picks[1..] {
            prop_assert!(is_likely(*picked, CALLS, 1.0 / (count - 1) as f64), "{:?}", picks);
        }
    }
}
