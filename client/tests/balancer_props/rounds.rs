//! Round robin, plain and by weight.

use mesh_client::Balancer;
use mesh_client::balancer::Candidates;
use proptest::prelude::*;

use crate::model::{Endpoint, Model, is_likely, picker};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_round_reaches_everybody_once(count in 1_usize..300, rounds in 1_usize..5, seed: u64) {
        let model = Model::equal(count, seed);
        let picks = model.picks(&picker(&Balancer::RoundRobin, &model, None), count * rounds);
        prop_assert!(picks.iter().all(|picked| *picked == rounds), "{:?}", picks);
    }

    /// A new snapshot goes on where the last one was. Were the round to begin anew with each, the first candidates of a
    /// service that changes all the time would get all its calls.
    #[test]
    fn a_change_of_candidates_does_not_begin_a_new_round(count in 2_usize..50, between in 1_usize..10, seed: u64) {
        let model = Model::equal(count, seed);
        let mut picks = vec![0; count];
        for _ in 0..count {
            let renewed = picker(&Balancer::RoundRobin, &model, None);
            for _ in 0..between {
                picks[renewed.pick(&model, None).unwrap()] += 1;
            }
        }
        prop_assert!(picks.iter().all(|picked| *picked == between), "{:?}", picks);
    }

    /// Also when one comes and goes all the time: none of those that stay is visited much more often than the others.
    #[test]
    fn candidates_that_come_and_go_favour_nobody(count in 2_usize..20, seed: u64) {
        const CALLS: usize = 20_000;
        let model = Model::equal(count + 1, seed);
        let with = picker(&Balancer::RoundRobin, &model, None);
        let without = picker(&Balancer::RoundRobin, &Model::equal(count, seed), None);
        let mut picks = vec![0_usize; count + 1];
        for _ in 0..CALLS {
            let now = if model.draw() % 16 < 8 { &with } else { &without };
            picks[now.pick(&model, None).unwrap()] += 1;
        }
        let share = (1.0 / count as f64 + 1.0 / (count as f64 + 1.0)) / 2.0;
        prop_assert!(picks[..count].iter().all(|picked| is_likely(*picked, CALLS, share)), "{:?}", picks);
    }

    #[test]
    fn who_cannot_take_a_call_is_passed_over(open in prop::collection::vec(any::<bool>(), 1..50), seed: u64) {
        prop_assume!(open.contains(&true));
        let endpoints = open.iter().map(|open| Endpoint { open: *open, ..Endpoint::default() }).collect();
        let model = Model::new(endpoints, seed);
        let picks = model.picks(&picker(&Balancer::RoundRobin, &model, None), 10 * open.len());
        prop_assert!(picks.iter().zip(&open).all(|(picked, open)| (*picked > 0) == *open), "{:?}", picks);
    }

    /// Each one's share of the calls is its share of the weight, within one per cent.
    #[test]
    fn shares_follow_weights_within_one_per_cent(weights in prop::collection::vec(1_u16..=1000, 2..10), seed: u64) {
        const CALLS: usize = 20_000;
        let model = Model::weighted(&weights, seed);
        let picks = model.picks(&picker(&Balancer::WeightedRoundRobin, &model, None), CALLS);
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        for (picked, weight) in picks.iter().zip(&weights) {
            let expected = CALLS as f64 * f64::from(*weight) / sum;
            prop_assert!((*picked as f64 - expected).abs() <= expected * 0.01 + 2.0, "{} for {}", picked, expected);
        }
    }

    /// It is a round, not a lottery: within any short stretch the shares hold too.
    #[test]
    fn the_heavy_are_spread_over_the_round(light in 1_u16..100, seed: u64) {
        let model = Model::weighted(&[100, light], seed);
        let picker = picker(&Balancer::WeightedRoundRobin, &model, None);
        let mut lights_turn = 0_i64;
        for call in 1..1000_i64 {
            lights_turn += i64::from(picker.pick(&model, None) == Some(1));
            let expected = call as f64 * f64::from(light) / f64::from(100 + light);
            prop_assert!((lights_turn as f64 - expected).abs() <= 3.0, "{} of {}", lights_turn, call);
        }
    }

    #[test]
    fn an_unknown_weight_is_the_mean(known in prop::collection::vec(1_u16..=1000, 2..10), seed: u64) {
        const CALLS: usize = 20_000;
        let mut weights = known.clone();
        weights.push(0);
        let model = Model::weighted(&weights, seed);
        let picks = model.picks(&picker(&Balancer::WeightedRoundRobin, &model, None), CALLS);
        let expected = CALLS as f64 / weights.len() as f64;
        prop_assert!((picks[known.len()] as f64 - expected).abs() <= expected * 0.02 + 2.0, "{:?}", picks);
    }

    #[test]
    fn one_known_weight_says_nothing(count in 2_usize..50, weight: u16, seed: u64) {
        let mut weights = vec![0; count];
        weights[0] = weight;
        let model = Model::weighted(&weights, seed);
        let picks = model.picks(&picker(&Balancer::WeightedRoundRobin, &model, None), 3 * count);
        prop_assert!(picks.iter().all(|picked| *picked == 3), "{:?}", picks);
    }

    /// However unequal the weights are, a pick takes a bounded number of turns: two rounds and one, and ten on average.
    #[test]
    fn a_pick_takes_a_bounded_number_of_turns(weights in prop::collection::vec(0_u16.., 1..500), seed: u64) {
        const CALLS: u64 = 500;
        let model = Model::weighted(&weights, seed);
        model.turn.set(0);
        let picker = picker(&Balancer::WeightedRoundRobin, &model, None);
        for _ in 0..CALLS {
            let before = model.turn.get();
            picker.pick(&model, None).unwrap();
            prop_assert!(model.turn.get() - before <= 2 * weights.len() as u64 + 1);
        }
        prop_assert!(model.turn.get() <= 11 * CALLS + 2 * weights.len() as u64, "{}", model.turn.get());
    }

    /// One that warms up gets that part of its turns, in plain rounds too.
    #[test]
    fn who_warms_up_lets_some_turns_go_by(count in 2_usize..20, warmth in 0.1_f32..0.9, seed: u64) {
        const CALLS: usize = 20_000;
        let mut model = Model::equal(count, seed);
        model.endpoints[0].warmth = warmth;
        let picks = model.picks(&picker(&Balancer::RoundRobin, &model, None), CALLS);
        let share = f64::from(warmth) / (f64::from(warmth) + (count - 1) as f64);
        prop_assert!(is_likely(picks[0], CALLS, share), "{:?} for {}", picks, share);
    }

    /// When all of them warm up, as after the caller's own start, they still take turns.
    #[test]
    fn where_everybody_warms_up_nobody_is_left_out(count in 1_usize..50, warmth in 0.000_01_f32..0.5, seed: u64) {
        const CALLS: usize = 5_000;
        let model = Model::new(vec![Endpoint { warmth, ..Endpoint::default() }; count], seed);
        let picks = model.picks(&picker(&Balancer::RoundRobin, &model, None), CALLS);
        prop_assert!(picks.iter().all(|picked| is_likely(*picked, CALLS, 1.0 / count as f64)), "{:?}", picks);
    }

    /// Even at the very beginning, when each of them would let nearly every turn go by.
    #[test]
    fn the_cold_take_turns_too(count in 1_usize..50, seed: u64) {
        let rounds = 20;
        let model = Model::new(vec![Endpoint { warmth: f32::MIN_POSITIVE, ..Endpoint::default() }; count], seed);
        let picks = model.picks(&picker(&Balancer::RoundRobin, &model, None), rounds * count);
        prop_assert!(picks.iter().all(|picked| picked.abs_diff(rounds) <= 1), "{:?}", picks);
    }
}
